"""The service over a small bundle, whose routes and metrics the documents must name."""

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.predictor import Predictor
from service.settings import Settings
from tests.bundles import make_bundle


@pytest.fixture
def client(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    bundle = make_bundle(tmp_path_factory.mktemp("bundle") / "binary", "binary")
    return create_app(Settings(), Predictor.load(bundle)).test_client()
