"""Liveness, readiness and metrics. A process that is alive but not ready must get no requests, but not be restarted."""

from typing import Any

import flask

from service import logs
from service.access.guard import NEAR
from service.errors import ApiError
from service.routes.shared import predictor
from service.state import state

blueprint = flask.Blueprint("health", __name__)


@blueprint.get("/health/live")
def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@blueprint.get("/health/ready")
def ready() -> dict[str, Any]:
    """The model is loaded and has predicted once; 503 otherwise."""
    bundle = predictor().bundle
    return {"status": "ready", "model": {"name": bundle.name, "version": bundle.version}}


@blueprint.get("/metrics")
def metrics() -> flask.Response:
    """The metrics for Prometheus; a 403 outside of their networks, where a request has no API key."""
    environ = flask.request.environ
    # Here and not in the guard, because Flask finds this route by other paths, too, such as //metrics.
    if state().settings.metrics_networks and not {logs.KEY, NEAR} & environ.keys():
        state().metrics.turned_away("network")
        raise ApiError(403, "forbidden", "metrics aren't for callers from this network")
    body, content_type = state().metrics.exposition(flask.request.headers.get("Accept"))
    return flask.Response(body, content_type=content_type)
