"""Fixtures: bundles, predictors, and the application as a WSGI object.

test_process.py runs the service as a process.
"""

from collections.abc import Callable
from pathlib import Path

import flask
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.predictor import Predictor
from service.settings import Settings
from tests.bundles import Kind, make_bundle
from tests.service.keyring import KeyRing

KINDS: tuple[Kind, ...] = ("binary", "multiclass", "regression")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle directory of each kind."""
    folder = tmp_path_factory.mktemp("bundles")
    return {kind: make_bundle(folder / kind, kind) for kind in KINDS}


@pytest.fixture(scope="session")
def predictors(bundles: dict[str, Path]) -> dict[str, Predictor]:
    return {kind: Predictor.load(path) for kind, path in bundles.items()}


@pytest.fixture(scope="session")
def predictor(predictors: dict[str, Predictor]) -> Predictor:
    """Binary, with a feature of every type."""
    return predictors["binary"]


@pytest.fixture
def make_app(monkeypatch: pytest.MonkeyPatch, predictor: Predictor) -> Callable[..., flask.Flask]:
    """The application with these settings; by default over the binary bundle."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)

    def make(loaded: Predictor | None = predictor, **settings: object) -> flask.Flask:
        return create_app(Settings.model_validate(settings), loaded)

    return make


@pytest.fixture
def client(make_app: Callable[..., flask.Flask]) -> FlaskClient:
    return make_app().test_client()


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """An empty key file."""
    made = KeyRing(tmp_path / "keys.json")
    made.write()
    return made
