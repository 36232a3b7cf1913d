"""The Open Inference Protocol byte by byte; compression and character sets in every protocol."""

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from tests.bundles import EXAMPLE

INFER = "/v2/models/small-binary/infer"


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


def test_half_of_a_surrogate_pair_is_no_datatype(client):
    tensor = {"name": "amount", "datatype": "\ud800", "shape": [1], "data": [1]}
    response = client.post(INFER, json={"inputs": [tensor]})
    assert response.status_code == 422
    assert response.get_json()["error"].startswith("the document can't be read")


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
    instances = b'{"instances": [' + json.dumps(EXAMPLE).encode() + b"]}"
    tensors = [
        {"name": name, "shape": [1], "datatype": kind, "data": [EXAMPLE[name]]}
        for name, kind in (("amount", "FP64"), ("shop", "BYTES"))
    ]
    bodies = {
        "/predict": BODY,
        "/explain": BODY,
        "/invocations": instances,
        "/v1/models/small-binary:predict": instances,
        INFER: json.dumps({"inputs": tensors}).encode(),
        "/predict/lines": json.dumps(EXAMPLE).encode(),
        "/invocations?csv": b"amount,shop\n1,north\n",
    }
    for path, body in bodies.items():
        kind = {"/predict/lines": "application/x-ndjson", "/invocations?csv": "text/csv"}.get(path, "application/json")
        given = content_type.replace("application/json", kind)
        assert client.post(path, data=body, content_type=given).status_code == status, path
