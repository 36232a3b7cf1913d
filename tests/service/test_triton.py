"""Triton's own client, used as in its documentation: each of its calls works, or gets an error that it understands."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import numpy as np
import pytest

from service.predictor import Predictor
from tests.bundles import EXAMPLE
from tests.service.serving import served

# Triton's client and gevent warn of what they will do in later versions.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

ROWS = [EXAMPLE, EXAMPLE | {"amount": 490.0, "colour": "blue", "visits": 7.0, "member": False}]
INFER = "/v2/models/small-binary/infer"


@pytest.fixture
def triton() -> Any:
    """Triton's client; it has no build for Python 3.11 on macOS."""
    return pytest.importorskip("tritonclient.http")


@pytest.fixture
def live(triton: Any, make_app: Callable[..., flask.Flask]) -> Iterator[Any]:
    """Triton's client, connected."""
    with served(make_app()) as address, triton.InferenceServerClient(url=address, concurrency=4) as connected:
        yield connected


def tensors(triton: Any, rows: list[dict[str, Any]], *, binary: bool) -> list[Any]:
    """The rows as Triton's client sends them."""
    made = []
    for name, example in EXAMPLE.items():
        datatype = {str: "BYTES", bool: "BOOL"}.get(type(example), "FP64")
        values = np.array([row[name] for row in rows], {"BYTES": object, "BOOL": bool, "FP64": np.float64}[datatype])
        made.append(triton.InferInput(name, [len(rows)], datatype))
        made[-1].set_data_from_numpy(values, binary_data=binary)
    return made


def expected(predictor: Predictor, rows: list[dict[str, Any]]) -> tuple[list[Any], list[list[float]]]:
    answers = predictor.predict(rows).answers
    return [answer.prediction for answer in answers], [
        list((answer.probabilities or {}).values()) for answer in answers
    ]


def check(result: Any, predictor: Predictor, rows: list[dict[str, Any]] = ROWS) -> None:
    """The result holds both outputs, equal to the predictor's."""
    predictions, probabilities = expected(predictor, rows)
    labels = [value.decode() if isinstance(value, bytes) else value for value in result.as_numpy("prediction").tolist()]
    assert labels == predictions
    assert result.as_numpy("probabilities").tolist() == probabilities


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tritons_client_gets_the_predictors_answers(triton, live, predictor, binary_in, binary_out):
    outputs = None
    if binary_out is not None:
        outputs = [
            triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("prediction", "probabilities")
        ]
    result = live.infer("small-binary", tensors(triton, ROWS, binary=binary_in), outputs=outputs, request_id="7")
    check(result, predictor)
    assert result.get_response()["id"] == "7"
    assert result.get_response()["model_version"] == predictor.bundle.version


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
def test_tritons_client_compresses_both_ways(triton, live, predictor, sent, wanted):
    rows = ROWS * 100
    result = live.infer(
        "small-binary",
        tensors(triton, rows, binary=True),
        request_compression_algorithm=sent,
        response_compression_algorithm=wanted,
    )
    check(result, predictor, rows)


def test_tritons_client_asks_without_waiting(triton, live, predictor):
    waiting = [
        live.async_infer(
            "small-binary", tensors(triton, ROWS, binary=bool(n % 2)), model_version=predictor.bundle.version
        )
        for n in range(6)
    ]
    for handle in waiting:
        check(handle.get_result(), predictor)


def test_tritons_client_gets_only_the_output_it_wants_and_the_best_classes(triton, live, predictor):
    inputs = tensors(triton, ROWS, binary=True)
    result = live.infer("small-binary", inputs, outputs=[triton.InferRequestedOutput("prediction")])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["prediction"]
    best = live.infer("small-binary", inputs, outputs=[triton.InferRequestedOutput("probabilities", class_count=1)])
    _, probabilities = expected(predictor, ROWS)
    for (text,), row in zip(best.as_numpy("probabilities"), probabilities, strict=True):
        number, place, label = text.decode().split(":")
        assert float(number) == pytest.approx(max(row), abs=1e-6)
        assert (int(place), label) == (row.index(max(row)), predictor.schema.classes[row.index(max(row))])
    with pytest.raises(triton.InferenceServerException, match="'nothing' is not an output: ask for prediction or prob"):
        live.infer("small-binary", inputs, outputs=[triton.InferRequestedOutput("nothing")])


def test_tritons_client_reads_what_the_server_says_of_itself(live, predictor):
    version = predictor.bundle.version
    assert live.is_server_live()
    assert live.is_server_ready()
    assert live.is_model_ready("small-binary")
    assert live.is_model_ready("small-binary", version)
    assert not live.is_model_ready("other")
    assert "binary_tensor_data" in live.get_server_metadata()["extensions"]
    assert live.get_model_metadata("small-binary", version)["versions"] == [version]
    (listed,) = live.get_model_repository_index()
    assert (listed["name"], listed["version"], listed["state"]) == ("small-binary", version, "READY")
    config = live.get_model_config("small-binary")
    assert config["input"][0] == {"name": "amount", "data_type": "TYPE_FP64", "dims": [-1]}
    assert {"name": "probabilities", "data_type": "TYPE_FP64", "dims": [-1, 2]} in config["output"]


def test_statistics_count_rows_and_requests(triton, live):
    for _ in range(3):
        live.infer("small-binary", tensors(triton, ROWS, binary=True))
    with pytest.raises(triton.InferenceServerException):
        live.infer("small-binary", tensors(triton, ROWS, binary=True)[1:])
    (found,) = live.get_inference_statistics("small-binary")["model_stats"]
    assert (found["inference_count"], found["execution_count"]) == (6, 3)
    assert found["inference_stats"]["success"]["count"] == 3
    assert found["inference_stats"]["fail"]["count"] == 1
    assert found["inference_stats"]["success"]["ns"] > 0
    assert live.get_inference_statistics()["model_stats"][0]["name"] == "small-binary"


def test_what_the_service_does_not_offer_is_said_in_tritons_form(triton, live):
    inputs = tensors(triton, ROWS, binary=True)
    inputs[0].set_shared_memory("region", 16)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: live.load_model("small-binary"), "callers can't load or unload models: MODEL_URI says"),
        (lambda: live.unload_model("small-binary"), "callers can't load or unload models"),
        (lambda: live.infer("small-binary", inputs), "shared memory isn't supported"),
        (lambda: live.infer("other", inputs), "this service has the model small-binary"),
        *(
            (call, "not found")
            for call in (
                live.get_trace_settings,
                live.update_trace_settings,
                live.get_log_settings,
                lambda: live.update_log_settings({}),
                live.get_system_shared_memory_status,
                lambda: live.register_system_shared_memory("region", "key", 16),
                live.unregister_system_shared_memory,
                live.get_cuda_shared_memory_status,
                lambda: live.register_cuda_shared_memory("region", b"", 0, 16),
                live.unregister_cuda_shared_memory,
            )
        ),
    ]
    for call, text in calls:
        with pytest.raises(triton.InferenceServerException) as failed:
            call()
        assert text in failed.value.message()
        assert failed.value.status() in ("400", "404", "422")


def test_tritons_client_builds_requests_and_reads_answers_apart_from_its_connection(triton, client, predictor):
    body, length = triton.InferenceServerClient.generate_request_body(tensors(triton, ROWS, binary=True))
    response = client.post(INFER, data=body, headers={"Inference-Header-Content-Length": str(length)})
    header = int(response.headers["Inference-Header-Content-Length"])
    assert response.content_type == "application/octet-stream"
    check(triton.InferenceServerClient.parse_response_body(response.data, header_length=header), predictor)


def test_every_call_of_tritons_client_is_made_here(triton):
    of_the_connection = {"close", "plugin", "register_plugin", "unregister_plugin"}
    offered = {name for name in dir(triton.InferenceServerClient) if not name.startswith("_")}
    made = set(re.findall(r"\blive\.(\w+)", Path(__file__).read_text()))
    static = {"generate_request_body", "parse_response_body"}
    assert offered - of_the_connection - static == made
