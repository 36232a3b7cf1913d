"""POST /invocations: MLflow's scoring protocol, so that its clients work unchanged."""

import flask

from service.bodies import check_type, compress, parse_json, read_as, read_body
from service.protocols import Invocation
from service.routes.shared import answer, counted, documents, predictor, scores
from service.scoring import read_csv, read_invocation
from service.state import state

blueprint = flask.Blueprint("invocations", __name__)
blueprint.after_request(compress)

MLFLOW = "3.17.2"
"""The version of MLflow whose protocol this is; a test compares it with the installed version."""


@blueprint.get("/ping")
@blueprint.get("/health")
def ping() -> flask.Response:
    """MLflow's health check."""
    predictor()
    return flask.Response("\n", content_type="text/plain")


@blueprint.get("/version")
def version() -> flask.Response:
    """The version of MLflow whose protocol this is, as text."""
    return flask.Response(MLFLOW, content_type="text/plain")


@blueprint.post("/invocations")
def invocations() -> flask.Response:
    """Rows in any of MLflow's JSON forms, or CSV -> {"predictions": [{prediction, probability:LABEL…}]}.

    NaN means missing.
    """
    loaded = predictor()
    if check_type("application/json", "text/csv") == "text/csv":
        rows = read_csv(read_body(), loaded.schema)
    else:
        body = read_body()
        typed = documents().tables.invocation(body, state().settings.max_rows)
        if typed is not None:
            return scores(counted(loaded, typed))
        rows = read_invocation(read_as(parse_json(body, bare_nan=True), Invocation, "no_rows"), loaded.schema)
    _, answers = answer(rows, "missing")
    return scores(answers)
