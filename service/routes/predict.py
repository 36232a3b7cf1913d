"""POST /predict: Atlas's own protocol."""

import flask

from service.errors import ApiError
from service.routes.shared import answer, read_json
from service.state import state

blueprint = flask.Blueprint("predict", __name__)


@blueprint.post("/predict")
def predict() -> flask.Response:
    """{"rows": [{feature: value}]} -> a prediction per row, with probabilities and warnings."""
    document = read_json(bare_nan=False)
    if not isinstance(document, dict) or set(document) != {"rows"}:
        raise ApiError(422, "no_rows", 'send {"rows": [{feature: value, …}, …]} and nothing else')
    _, answers = answer(document["rows"], "error")
    documents = state().documents
    assert documents is not None  # noqa: S101 - there is one for each predictor
    return flask.Response(documents.answer(answers), content_type="application/json")
