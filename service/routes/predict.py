"""POST /predict: Atlas's own protocol."""

import flask

from service.routes.shared import answer, documents, read_rows

blueprint = flask.Blueprint("predict", __name__)


@blueprint.post("/predict")
def predict() -> flask.Response:
    """{"rows": [{feature: value}]} -> a prediction per row, with probabilities and warnings."""
    _, answers = answer(read_rows(), "error")
    return flask.Response(documents().answer(answers), content_type="application/json")
