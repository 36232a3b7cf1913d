"""Bodies of every protocol, damaged at random, never cause a server error, and leave the service as it was."""

import gzip
import http.client
import json
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import flask
import numpy as np
import pytest

from tests.bundles import EXAMPLE
from tests.service.serving import served

COUNT = int(os.environ.get("ATLAS_MUTATIONS", "3000"))
"""Requests; ATLAS_MUTATIONS=100000 takes minutes."""
PIECES = (
    b"null", b"-1", b"1e400", b"NaN", b"Infinity", b'""', b"[]", b"{}", b'"\\ud800"', b"\xff", b"\x00", b"9" * 400,
    b"true", b'"BYTES"', b'"FP16"', b"[[[", b'{"a":', b",", b":", b'"', b"-0.0", b"2147483648", b"\xe2\x80\xa8",
)  # fmt: skip
LINES = ("csv", "ndjson")
"""Kinds of bodies of which a part can be a whole body."""
Request = tuple[str, bytes, dict[str, str]]


def requests() -> list[Request]:
    """A request of each form, which is answered."""
    rows = [EXAMPLE, EXAMPLE | {"amount": 5, "visits": None}]
    model = "small-binary"
    as_json = {"Content-Type": "application/json"}
    tensors = [
        {"name": "amount", "datatype": "FP64", "shape": [2], "data": [1, 2]},
        {"name": "shop", "datatype": "BYTES", "shape": [2, 1], "data": [["north"], ["south"]]},
    ]
    head = json.dumps(
        {
            "inputs": [
                {"name": "amount", "datatype": "FP16", "shape": [2], "parameters": {"binary_data_size": 4}},
                {"name": "shop", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 18}},
            ],
            "outputs": [{"name": "probabilities", "parameters": {"classification": 1, "binary_data": True}}],
        }
    ).encode()
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"north", b"south"))
    binary = head + np.array([1, 2], "<f2").tobytes() + texts
    documents: list[tuple[str, object]] = [
        ("/predict", {"rows": rows}),
        ("/explain", {"rows": rows[:1]}),
        ("/invocations", {"dataframe_split": {"columns": list(EXAMPLE), "data": [list(row.values()) for row in rows]}}),
        ("/invocations", {"inputs": {name: [row[name] for row in rows] for name in EXAMPLE}}),
        ("/invocations", {"dataframe_records": rows}),
        (f"/v1/models/{model}:predict", {"instances": [list(row.values()) for row in rows]}),
        (f"/v2/models/{model}/infer", {"id": "7", "inputs": tensors, "parameters": {"binary_data_output": True}}),
        (f"/v2/models/{model}/infer", {"inputs": tensors, "outputs": [{"name": "prediction"}]}),
    ]
    found = [(path, json.dumps(document).encode(), as_json) for path, document in documents]
    found.append(("/invocations", b'amount,shop,note\n1,north,"a,\nb"\n2,south,\n', {"Content-Type": "text/csv"}))
    lines = "\n".join(map(json.dumps, rows)).encode()
    found.append(("/predict/lines", lines, {"Content-Type": "application/x-ndjson"}))
    found.append((f"/v2/models/{model}/infer", binary, {"Inference-Header-Content-Length": str(len(head))}))
    return found


def damaged(body: bytes, chance: random.Random) -> bytes:
    """The body with a few bytes changed, lost, doubled, moved or replaced by something odd."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(body) + 1)
        end = min(len(body), start + chance.choice((0, 1, 1, 2, 5, 20)))
        middle = chance.choice(
            (b"", body[start:end] * 2, bytes([chance.randrange(256)]), chance.choice(PIECES), body[end : end + 9])
        )
        body = body[:start] + middle + body[end:]
    return body


@pytest.fixture
def post(make_app: Callable[..., flask.Flask]) -> Iterator[Callable[..., tuple[int, bytes]]]:
    """Sends a body to the service's own server, over one connection; status and answer."""
    with served(make_app(log_level="error")) as address:
        connection = http.client.HTTPConnection(address, timeout=30)

        def send(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()

        yield send
        connection.close()


@pytest.mark.slow
def test_damaged_bodies_never_cause_a_server_error(post: Callable[..., tuple[int, bytes]]) -> None:
    chance = random.Random(22)
    whole = requests()
    for path, body, headers in whole:
        assert post(path, body, headers)[0] == 200, path
    statuses = set()
    for _ in range(COUNT):
        path, body, headers = chance.choice(whole)
        body, headers = damaged(body, chance), dict(headers)
        if chance.random() < 0.1:
            encoding = chance.choice(("gzip", "deflate"))
            body = gzip.compress(body, 1) if encoding == "gzip" else zlib.compress(body, 1)
            body = body if chance.random() < 0.5 else damaged(body, chance)
            headers["Content-Encoding"] = encoding
        status, answer = post(path, body, headers)
        assert status < 500, (path, body, headers)
        if status != 200:
            error = json.loads(answer)
            assert isinstance(error.get("error", error.get("message")), dict | str)
        statuses.add(status)
    assert {200, 400, 422} <= statuses
    for path, body, headers in whole:
        assert post(path, body, headers)[0] == 200, path


@pytest.mark.parametrize(
    "number",
    [place for place, (*_, headers) in enumerate(requests()) if not any(kind in str(headers) for kind in LINES)],
)
def test_a_body_that_is_cut_off_anywhere_is_refused(make_app: Callable[..., flask.Flask], number: int) -> None:
    client = make_app(log_level="error").test_client()
    path, body, headers = requests()[number]
    for end in range(0, len(body) - 2, 17):
        assert 400 <= client.post(path, data=body[:end], headers=headers).status_code < 500
