"""POST /invocations: MLflow's scoring protocol, so that its clients work unchanged."""

from typing import Any

import flask

from service.bodies import check_type, compress, read_as, read_body
from service.protocols import Invocation
from service.routes.shared import answer, parse_json, predictor
from service.scoring import predictions_of, read_csv, read_invocation

blueprint = flask.Blueprint("invocations", __name__)
blueprint.after_request(compress)

MLFLOW = "3.17.2"
"""The version of MLflow whose protocol this is; a test compares it with the installed version."""


@blueprint.get("/ping")
@blueprint.get("/health")
def ping() -> tuple[str, int]:
    """MLflow's health check."""
    predictor()
    return "\n", 200


@blueprint.get("/version")
def version() -> flask.Response:
    """The version of MLflow whose protocol this is, as text."""
    return flask.Response(MLFLOW, content_type="text/plain")


@blueprint.post("/invocations")
def invocations() -> dict[str, Any]:
    """Rows in any of MLflow's JSON forms, or CSV -> {"predictions": [{prediction, probability:LABEL…}]}.

    NaN means missing.
    """
    loaded = predictor()
    if check_type("application/json", "text/csv") == "text/csv":
        rows = read_csv(read_body(), loaded.schema)
    else:
        document = read_as(parse_json(read_body(), bare_nan=True), Invocation, "no_rows")
        rows = read_invocation(document, loaded.schema)
    _, answers = answer(rows, "missing")
    return {"predictions": predictions_of(answers)}
