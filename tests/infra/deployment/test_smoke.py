"""The smoke test of a service that needs API keys: with a key it predicts, without one it sees the refusal."""

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.deployment.smoke import _refused, predict
from service.access.keys import hashed, new_token
from service.app import create_app
from service.predictor import Predictor
from service.settings import Settings
from tests.bundles import make_bundle
from tests.service.serving import served

pytestmark = pytest.mark.slow

Connect = Callable[[], http.client.HTTPConnection]
TOKEN = new_token()


@pytest.fixture(scope="module", params=[True, False], ids=["keys", "open"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[bool, Connect]]:
    """Whether it needs keys, and how to connect to it."""
    folder: Path = tmp_path_factory.mktemp("smoke")
    path = folder / "keys.json"
    path.write_text(f'{{"keys": [{{"name": "smoke", "sha256": "{hashed(TOKEN)}"}}]}}')
    settings = Settings(api_keys_file=path if request.param else None)
    with served(create_app(settings, Predictor.load(make_bundle(folder / "bundle", "binary")))) as address:
        yield request.param, lambda: http.client.HTTPConnection(address, timeout=30)


def test_a_key_is_sent_where_one_is_given(service: tuple[bool, Connect]) -> None:
    needed, connect = service
    _, answer = predict(connect, TOKEN)
    assert answer["predictions"]
    if needed:
        with pytest.raises(ValueError, match=r"GET /openapi\.json answered 401"):
            predict(connect)
    else:
        assert predict(connect)[1]["predictions"]


def test_without_a_key_only_a_refusal_is_right(service: tuple[bool, Connect]) -> None:
    needed, connect = service
    if needed:
        assert _refused(connect)[1]["error"]["code"] == "unauthorized"
    else:
        with pytest.raises(ValueError, match="POST /predict answered 422"):
            _refused(connect)
