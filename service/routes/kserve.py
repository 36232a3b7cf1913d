"""/v1: KServe's first protocol, which TensorFlow Serving's clients also speak."""

from typing import Any

import flask

from service.bodies import check_type, compress, read_as, read_body
from service.protocols import Instances
from service.routes.shared import answer, check_model, parse_json, predictor
from service.scoring import predictions_of, read_instances

blueprint = flask.Blueprint("kserve", __name__, url_prefix="/v1")
blueprint.after_request(compress)


@blueprint.get("/models")
def models() -> dict[str, list[str]]:
    """The models: this one."""
    return {"models": [predictor().bundle.name]}


@blueprint.get("/models/<name>")
def model(name: str) -> dict[str, Any]:
    """The model of that name can predict; 503 otherwise."""
    check_model(name)
    return {"name": name, "ready": True}


@blueprint.post("/models/<name>:predict")
def predict(name: str) -> dict[str, Any]:
    """{"instances": [rows]} -> {"predictions": [{prediction, probability:LABEL…}]}; NaN means missing."""
    check_model(name)
    check_type("application/json", "")
    document = read_as(parse_json(read_body(), bare_nan=True), Instances, "no_rows")
    _, answers = answer(read_instances(document.instances, predictor().schema), "missing")
    return {"predictions": predictions_of(answers)}
