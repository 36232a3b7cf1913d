"""POST /predict: Atlas's own protocol."""

import flask

from service.routes.shared import answer, read_rows
from service.state import state

blueprint = flask.Blueprint("predict", __name__)


@blueprint.post("/predict")
def predict() -> flask.Response:
    """{"rows": [{feature: value}]} -> a prediction per row, with probabilities and warnings."""
    _, answers = answer(read_rows(), "error")
    documents = state().documents
    assert documents is not None  # noqa: S101 - there is one for each predictor
    return flask.Response(documents.answer(answers), content_type="application/json")
