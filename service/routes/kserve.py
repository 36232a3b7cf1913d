"""/v1: KServe's first protocol, which TensorFlow Serving's clients also speak."""

from typing import Any

import flask

from service.bodies import check_type, compress, parse_json, read_as, read_body
from service.protocols import Instances
from service.routes.shared import answer, check_model, counted, documents, predictor, scores
from service.scoring import read_instances
from service.state import state

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
def predict(name: str) -> flask.Response:
    """{"instances": [rows]} -> {"predictions": [{prediction, probability:LABEL…}]}; NaN means missing."""
    check_model(name)
    check_type("application/json", "")
    body = read_body()

    loaded = predictor()
    typed = documents().tables.instances(body, state().settings.max_rows)
    if typed is not None:
        return scores(counted(loaded, typed))
    document = read_as(parse_json(body, bare_nan=True), Instances, "no_rows")
    _, answers = answer(read_instances(document.instances, loaded.schema), "missing")
    return scores(answers)
