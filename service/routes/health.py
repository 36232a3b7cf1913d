"""Alive and ready, apart: a process that is alive but not ready must not be restarted, only left alone."""

from typing import Any

import flask

from service.routes.shared import predictor

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
