"""The state that all requests of an application share: `create_app` sets it, the routes read it."""

from dataclasses import dataclass
from typing import cast

import flask

from service.documents import Documents
from service.explanation.explainer import Explainer
from service.metrics import ModelMetrics
from service.predictor import Predictor
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class State:
    """Settings, predictor and metrics of an application."""

    settings: Settings
    predictor: Predictor | None
    """None while no model is loaded."""
    metrics: ModelMetrics
    documents: Documents | None
    """The predictor's documents; None while no model is loaded."""
    explainer: Explainer | None
    """The predictor's explainer; None while no model is loaded."""


def set_state(app: flask.Flask, shared: State) -> None:
    """Give the application its state."""
    app.extensions["atlas"] = shared


def state() -> State:
    """The state of the application that answers the current request."""
    return cast("State", flask.current_app.extensions["atlas"])
