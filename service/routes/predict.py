"""POST /predict: Atlas's own protocol."""

from typing import Any

import flask

from service.errors import ApiError
from service.routes.shared import answer, read_json

blueprint = flask.Blueprint("predict", __name__)


@blueprint.post("/predict")
def predict() -> dict[str, Any]:
    """{"rows": [{feature: value}]} -> a prediction per row, with probabilities and warnings."""
    document = read_json(bare_nan=False)
    if not isinstance(document, dict) or set(document) != {"rows"}:
        raise ApiError(422, "no_rows", 'send {"rows": [{feature: value, …}, …]} and nothing else')
    loaded, answers = answer(document["rows"], "error")
    predictions = []
    for row in answers.answers:
        prediction: dict[str, Any] = {"prediction": row.prediction}
        if row.probabilities is not None:
            prediction["probabilities"] = row.probabilities
        prediction["warnings"] = [{"field": w.field, "code": w.code, "message": w.message} for w in row.warnings]
        predictions.append(prediction)
    return {"model": {"name": loaded.bundle.name, "version": loaded.bundle.version}, "predictions": predictions}
