"""The Open Inference Protocol, asked by Triton's own client as its documentation uses it, and byte by byte."""

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import flask
import numpy as np
import pytest
from flask.testing import FlaskClient

from service.predictor import Predictor
from tests.bundles import EXAMPLE
from tests.service.serving import served

# Triton's client and gevent warn of what they will do in later versions.
pytestmark = pytest.mark.filterwarnings("default")

ROWS = [EXAMPLE, EXAMPLE | {"amount": 490.0, "colour": "blue", "visits": 7.0, "member": False}]
INFER = "/v2/models/small-binary/infer"


@pytest.fixture
def triton() -> Any:
    """Triton's client; it has no build for Python 3.11 on macOS."""
    return pytest.importorskip("tritonclient.http")


@pytest.fixture
def client(make_app: Callable[..., flask.Flask]) -> FlaskClient:
    return make_app().test_client()


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


# --- byte by byte ---


def binary(values: dict[str, tuple[str, bytes, int]]) -> tuple[bytes, dict[str, str]]:
    """A body and its header; each tensor as datatype, bytes and number of rows."""
    inputs = [
        {"name": name, "datatype": kind, "shape": [rows], "parameters": {"binary_data_size": len(content)}}
        for name, (kind, content, rows) in values.items()
    ]
    head = json.dumps({"inputs": inputs}).encode()
    content = b"".join(content for _, content, _ in values.values())
    return head + content, {"Inference-Header-Content-Length": str(len(head))}


SHOP = ("BYTES", struct.pack("<I", 5) + b"north", 1)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("FP64", np.array([120], "<f8").tobytes()),
        ("FP32", np.array([120], "<f4").tobytes()),
        ("FP16", np.array([120], "<f2").tobytes()),
        ("BF16", np.array([120], "<f4").tobytes()[2:]),
        ("INT64", np.array([120], "<i8").tobytes()),
        ("UINT16", np.array([120], "<u2").tobytes()),
        ("INT8", np.array([120], "i1").tobytes()),
    ],
)
def test_numbers_are_little_endian(client, kind, content):
    body, headers = binary({"amount": (kind, content, 1), "shop": SHOP})
    answer = client.post(INFER, data=body, headers=headers)
    own = client.post("/predict", json={"rows": [{"amount": 120, "shop": "north"}]}).get_json()["predictions"][0]
    assert answer.get_json()["outputs"][1]["data"] == list(own["probabilities"].values())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"amount": ("FP64", b"1234567", 1), "shop": SHOP}, "inputs.0: binary_data_size must be a multiple of 8"),
        ({"amount": ("FP64", b"12345678", 2), "shop": SHOP}, "inputs.0: shape must be [1]"),
        ({"shop": ("BYTES", b"\x05\0\0\0nor", 1)}, "inputs.0: each text must come after its length"),
        ({"shop": ("BYTES", b"\x05\0", 1)}, "inputs.0: each text must come after its length"),
        ({"shop": ("BYTES", b"\x01\0\0\0\xff", 1)}, "inputs.0: a text is not UTF-8"),
        ({"shop": ("BYTES", b"\xff\xff\xff\xff1", 1)}, "inputs.0: each text must come after its length"),
    ],
)
def test_a_binary_tensor_that_does_not_fit_is_refused(client, values, text):
    body, headers = binary(values)
    response = client.post(INFER, data=body, headers=headers)
    assert response.status_code == 422
    assert text in response.get_json()["error"]


def test_the_parts_of_a_binary_body_must_add_up(client):
    body, headers = binary({"amount": ("FP64", np.array([120.0]).tobytes(), 1), "shop": SHOP})
    assert client.post(INFER, data=body, headers=headers).status_code == 200
    cut = client.post(INFER, data=body[:-1], headers=headers)
    assert cut.get_json() == {"error": "inputs.1: binary_data_size is 9, but 8 bytes are left"}
    more = client.post(INFER, data=body + b"x", headers=headers)
    assert more.get_json() == {"error": "1 bytes after the last tensor belong to none"}
    for length in ("-1", "x", "1e3", "²", str(len(body) + 1), "9" * 5000):
        wrong = client.post(INFER, data=body, headers={"Inference-Header-Content-Length": length})
        assert wrong.status_code == 400
        assert "Inference-Header-Content-Length must be a number" in wrong.get_json()["error"]


def test_the_values_of_a_column_may_be_nested(client):
    inputs = [
        {"name": "amount", "datatype": "FP64", "shape": [2, 1], "data": [[1], [2]]},
        {"name": "shop", "datatype": "BYTES", "shape": [2], "data": ["north", "south"]},
    ]
    assert client.post(INFER, json={"inputs": inputs}).get_json()["outputs"][0]["shape"] == [2]


def test_an_id_that_cannot_be_sent_back_is_refused(client):
    tensor = {"name": "amount", "datatype": "FP64", "shape": [1], "data": [1]}
    response = client.post(INFER, json={"id": "\ud800", "inputs": [tensor]})
    assert (response.status_code, response.get_json()["error"][:7]) == (422, "id cont")


# --- compression and character sets, in every protocol ---


def post(client: FlaskClient, body: bytes, path: str = "/predict", **headers: str) -> Any:
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, data=body, headers=given)


BODY = json.dumps({"rows": [EXAMPLE]}).encode()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY[:50]) + gzip.compress(BODY[50:])),
        ("deflate", zlib.compress(BODY)),
        ("deflate", zlib.compress(BODY)[2:-4]),  # without zlib's header and checksum
        ("identity", BODY),
        ("GZIP", gzip.compress(BODY)),
    ],
)
def test_compressed_bodies_are_inflated(client, encoding, body):
    assert post(client, body, Content_Encoding=encoding).status_code == 200


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", BODY, 400),
        ("gzip", gzip.compress(BODY)[:-9], 400),
        ("gzip", gzip.compress(BODY) + b"x", 400),
        ("deflate", zlib.compress(BODY) + b"x", 400),
        ("deflate", b"\x78", 400),
        ("gzip", b"", 400),
        ("br", BODY, 415),
        ("gzip, gzip", gzip.compress(gzip.compress(BODY)), 415),
    ],
)
def test_bodies_that_cannot_be_inflated_are_refused(client, encoding, body, status):
    assert post(client, body, Content_Encoding=encoding).status_code == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_small_body_cannot_become_a_large_one(make_app, encoding):
    client = make_app(max_body_bytes=10_000).test_client()
    squeeze = gzip.compress if encoding == "gzip" else zlib.compress
    for bomb in (squeeze(b" " * 10_001), *([gzip.compress(b" " * 99) * 102] if encoding == "gzip" else [])):
        assert len(bomb) < 10_000
        response = post(client, bomb, Content_Encoding=encoding)
        assert (response.status_code, response.get_json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip", "gzip"), ("deflate", "deflate"), ("deflate;q=0.5, gzip;q=0.4", "deflate"), ("gzip;q=0", None),
     ("identity", None), ("br", None), (None, None)],
)  # fmt: skip
def test_answers_are_compressed_as_the_caller_accepts(client, accepted, encoding):
    body = json.dumps({"dataframe_records": [EXAMPLE] * 50}).encode()
    plain = post(client, body, "/invocations").get_json()
    response = post(client, body, "/invocations", **({} if accepted is None else {"Accept_Encoding": accepted}))
    assert response.headers.get("Content-Encoding") == encoding
    assert "Accept-Encoding" in response.headers["Vary"]
    content = response.data
    if encoding is not None:
        content = gzip.decompress(content) if encoding == "gzip" else zlib.decompress(content)
    assert json.loads(content) == plain


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("application/json; charset=UTF-8", 200),
        ('application/json; charset="us-ascii"', 200),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=latin-1", 415),
    ],
)
def test_a_character_set_is_honoured_or_refused(client, content_type, status):
    for path, body in (("/predict", BODY), ("/invocations", b'{"instances": [' + json.dumps(EXAMPLE).encode() + b"]}")):
        assert client.post(path, data=body, content_type=content_type).status_code == status
