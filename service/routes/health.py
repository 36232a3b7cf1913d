"""Liveness, readiness and metrics. A process that is alive but not ready must get no requests, but not be restarted."""

from typing import Any

import flask

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
    """The metrics for Prometheus."""
    body, content_type = state().metrics.exposition(flask.request.headers.get("Accept"))
    return flask.Response(body, content_type=content_type)
