"""How the service asks the model registry; tests/ml/test_tracking.py runs it against real MLflow servers."""

import http.server
import threading
from pathlib import Path

import pytest

from ml.bundle import BundleError
from service.registry import fetch
from service.settings import load_settings

pytestmark = pytest.mark.slow


def test_a_registry_on_this_machine_is_never_asked_through_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        settings = load_settings({"MODEL_URI": "models:/late@champion", "MLFLOW_TRACKING_URI": address})
        with pytest.raises(BundleError, match="answers 404"):  # that server knows no model, but it was asked
            fetch(settings, tmp_path)
        server.shutdown()
    settings = load_settings({"MODEL_URI": "models:/late@champion", "MLFLOW_TRACKING_URI": "http://elsewhere.invalid"})
    with pytest.raises(BundleError, match="refused"):  # by the proxy
        fetch(settings, tmp_path)
