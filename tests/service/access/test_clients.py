"""The protocols' own clients send an API key as their documentation says."""

from collections.abc import Callable
from typing import Any

import flask
import pytest

from service.access.keys import new_token
from service.predictor import Predictor
from tests.service.keyring import KeyRing, bearer
from tests.service.serving import served
from tests.service.test_triton import ROWS, check, tensors

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def app(make_app: Callable[..., flask.Flask], ring: KeyRing, every_look: None) -> flask.Flask:
    """The application that asks for the ring's keys."""
    return make_app(api_keys_file=ring.path)


def test_tritons_client_sends_its_key_with_every_call(app: flask.Flask, ring: KeyRing, predictor: Predictor) -> None:
    triton = pytest.importorskip("tritonclient.http")
    headers = bearer(ring.add("shop"))
    with served(app) as address, triton.InferenceServerClient(url=address) as connected:
        inputs = tensors(triton, ROWS, binary=True)
        check(connected.infer("small-binary", inputs, headers=headers), predictor)
        check(connected.async_infer("small-binary", inputs, headers=headers).get_result(), predictor)
        assert connected.get_model_metadata("small-binary", headers=headers)["name"] == "small-binary"
        assert connected.is_server_ready()
        for unknown in ({}, bearer(new_token())):
            with pytest.raises(triton.InferenceServerException, match="API key") as refused:
                connected.infer("small-binary", inputs, headers=unknown)
            assert refused.value.status() == "401"


def test_a_plugin_of_tritons_client_sends_the_key_by_itself(
    app: flask.Flask, ring: KeyRing, predictor: Predictor
) -> None:
    triton = pytest.importorskip("tritonclient.http")
    token = ring.add("shop")

    class Bearer(triton.InferenceServerClientPlugin):  # type: ignore[misc, name-defined]  # the client has no types
        """As its documentation makes plugins: they change a request's headers."""

        def __call__(self, request: Any) -> None:
            request.headers |= bearer(token)

    with served(app) as address, triton.InferenceServerClient(url=address) as connected:
        connected.register_plugin(Bearer())
        check(connected.infer("small-binary", tensors(triton, ROWS, binary=True)), predictor)
        assert connected.get_inference_statistics("small-binary")["model_stats"][0]["inference_count"] == len(ROWS)
