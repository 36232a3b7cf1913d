"""A caller, a log reader and Prometheus can't tell whether Flask answered a request to /predict."""

import io
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import flask
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from service.direct import Direct
from service.logs import JsonFormatter
from service.predictor import Predictor
from tests.bundles import EXAMPLE
from tests.service.conftest import KINDS
from tests.service.test_matrix import rows

Environ = dict[str, Any]


def post(body: bytes, **more: object) -> Environ:
    """The environ of a request to /predict."""
    return {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/predict", "SCRIPT_NAME": "", "QUERY_STRING": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "5000", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body), "wsgi.errors": io.StringIO(),
        "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)), "HTTP_X_REQUEST_ID": "the-same",
    } | more  # fmt: skip


def document(*given: object, **more: object) -> bytes:
    return json.dumps({"rows": given, **more}).encode()


class Observed:
    """An application, and what it answers, logs and counts."""

    def __init__(self, app: flask.Flask, entry: Callable[..., Any]) -> None:
        self.metrics = app.extensions["atlas"].metrics
        self.entry = entry

    def __call__(self, environ: Environ, caplog: pytest.LogCaptureFixture) -> tuple[Any, ...]:
        """Status, headers, body and log lines."""
        started: list[Any] = []
        caplog.clear()
        body = b"".join(self.entry(environ, lambda status, headers, _=None: started.extend([status, headers])))
        lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
        for line in lines:
            assert line.pop("milliseconds") >= 0
            assert line.pop("time")
        status, headers = started
        headers = [(name, re.sub(r"^[0-9a-f]{32}$", "new", value)) for name, value in headers]
        lines = [line | {"request_id": re.sub(r"^[0-9a-f]{32}$", "new", line["request_id"])} for line in lines]
        body = re.sub(rb'("request_id":)"[0-9a-f]{32}"', rb"\1", body)
        return status, headers, body, lines

    def counts(self) -> str:
        """The metrics, without durations."""
        text, _ = self.metrics.exposition(None)
        return re.sub(r"(?m)^(\S+_(?:bucket|sum|created)\b.*) \S+$", r"\1", text)


@pytest.fixture
def both(make_app: Callable[..., flask.Flask], caplog: pytest.LogCaptureFixture) -> Callable[..., list[Observed]]:
    """The whole application, and another without the direct route."""
    caplog.set_level(logging.INFO, "service")

    def make(predictor: Predictor) -> list[Observed]:
        whole, plain = (make_app(predictor, max_body_bytes=20_000, max_rows=50) for _ in range(2))
        assert isinstance(plain.wsgi_app, Direct)
        return [Observed(whole, whole.wsgi_app), Observed(plain, plain.wsgi_app._flask)]

    return make


PLAIN = document(EXAMPLE)
REQUESTS: dict[str, Callable[[], Environ]] = {
    "a row": lambda: post(PLAIN),
    "rows": lambda: post(document(EXAMPLE, EXAMPLE | {"amount": 3}, EXAMPLE | {"note": None})),
    "warnings": lambda: post(document(EXAMPLE | {"amount": 900, "colour": "mauve"}, EXAMPLE)),
    "bare": lambda: post(document({"amount": 10, "shop": "south"}, {"amount": 1, "shop": "north", "seen": None})),
    "a value of another type": lambda: post(document(EXAMPLE | {"visits": "3"}, EXAMPLE | {"member": "yes"})),
    "a new request id": lambda: {k: v for k, v in post(PLAIN).items() if k != "HTTP_X_REQUEST_ID"},
    "an ill-formed request id": lambda: post(PLAIN, HTTP_X_REQUEST_ID="a b"),
    "a query": lambda: post(PLAIN, QUERY_STRING="a=1"),
    "an unknown field": lambda: post(document(EXAMPLE | {"colou": "red"})),
    "a key twice": lambda: post(PLAIN.replace(b'"amount": 120.5', b'"amount": null, "amount": 120.5')),
    "a key twice in the last row": lambda: post(document(EXAMPLE, EXAMPLE)[:-2].rstrip(b"}") + b', "note": "late"}]}'),
    "rows twice": lambda: post(PLAIN[:-1] + b', "rows": []}'),
    "quotes in a value": lambda: post(document(EXAMPLE | {"note": 'a "late" \\'})),
    "escapes": lambda: post(document(EXAMPLE | {"colour": "gr\u00fcn"})),
    "half of a pair": lambda: post(document(EXAMPLE | {"colour": "\ud800"})),
    "UTF-8": lambda: post(json.dumps({"rows": [EXAMPLE | {"colour": "grün"}]}, ensure_ascii=False).encode()),
    "not UTF-8": lambda: post(PLAIN.replace(b"red", b"r\xfcd")),
    "NaN": lambda: post(PLAIN.replace(b"120.5", b"NaN")),
    "a large number": lambda: post(PLAIN.replace(b"120.5", b"1e400")),
    "a very long number": lambda: post(PLAIN.replace(b"120.5", b"1" * 5000)),
    "out of bounds": lambda: post(document(EXAMPLE, EXAMPLE | {"amount": -1})),
    "a caller who takes compressed answers": lambda: post(
        document(*[EXAMPLE] * 40), HTTP_ACCEPT_ENCODING="gzip, deflate"
    ),
    "a key that nobody asks for": lambda: post(PLAIN, HTTP_AUTHORIZATION="Bearer x", HTTP_X_API_KEY="x"),
    "a proxy that nobody trusts": lambda: post(PLAIN, HTTP_X_FORWARDED_FOR="10.0.0.1", HTTP_X_FORWARDED_PROTO="https"),
    "no rows": lambda: post(document()),
    "too many rows": lambda: post(document(*[{"amount": 1, "shop": "north"}] * 51)),
    "not an object": lambda: post(document(EXAMPLE, 3)),
    "another key": lambda: post(document(EXAMPLE, more=1)),
    "nested deeply": lambda: post(b"[" * 9000),
    "not JSON": lambda: post(b"{"),
    "empty": lambda: post(b""),
    "no length": lambda: {k: v for k, v in post(PLAIN).items() if k != "CONTENT_LENGTH"},
    "a length that is no number": lambda: post(PLAIN, CONTENT_LENGTH="+5"),
    "less than announced": lambda: post(PLAIN, CONTENT_LENGTH=str(len(PLAIN) + 1)),
    "chunks": lambda: post(PLAIN, HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input_terminated": True}),
    "too large": lambda: post(PLAIN + b" " * 20_000),
    "a charset": lambda: post(PLAIN, CONTENT_TYPE="application/json; charset=utf-8"),
    "another type": lambda: post(PLAIN, CONTENT_TYPE="text/plain"),
    "another method": lambda: post(PLAIN, REQUEST_METHOD="PUT"),
    "another route": lambda: post(PLAIN, PATH_INFO="/ping", REQUEST_METHOD="GET"),
    "a slash": lambda: post(PLAIN, PATH_INFO="/predict/"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_headers_logs_and_metrics_are_flasks(
    both: Callable[..., list[Observed]],
    predictors: dict[str, Predictor],
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, plain = both(predictors[kind])
    for name, request in REQUESTS.items():
        assert whole(request(), caplog) == plain(request(), caplog), name
    assert whole.counts() == plain.counts()


def test_any_rows_get_flasks_answers(
    both: Callable[..., list[Observed]], predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    whole, plain = both(predictor)

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(rows(), max_size=5))
    def alike(given: list[Any]) -> None:
        body = document(*given)
        assert whole(post(body), caplog) == plain(post(body), caplog)

    alike()
    assert whole.counts() == plain.counts()


PIECES = [
    b"\n",
    b"\0",
    b"\t",
    b"01",
    b"+",
    b".",
    b",",
    b'"',
    b"\\",
    b'\\"',
    b"\\u0061",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
]
PIECES += [
    b"null",
    b"NaN",
    b"1e999",
    b"1e-999",
    b"-0",
    b"//",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"note":"x",',
    b'"note":null,',
    b" ",
]


@pytest.mark.parametrize("body", [PLAIN, document({"amount": 10.5, "shop": "south"}, EXAMPLE)], ids=["row", "rows"])
def test_any_bytes_get_flasks_answers(
    both: Callable[..., list[Observed]], predictor: Predictor, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    whole, plain = both(predictor)

    @settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(body)), st.sampled_from([0, 0, 1, 2]), st.sampled_from(PIECES))
    def alike(place: int, removed: int, piece: bytes) -> None:
        changed = body[:place] + piece + body[place + removed :]
        assert whole(post(changed), caplog) == plain(post(changed), caplog), changed

    alike()
    assert whole.counts() == plain.counts()


@pytest.mark.parametrize("name", ["a row", "rows", "warnings", "bare", "a query", "escapes", "UTF-8"])
def test_flask_is_not_asked_for_usual_requests(
    make_app: Callable[..., flask.Flask], monkeypatch: pytest.MonkeyPatch, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service")
    app = make_app()
    monkeypatch.setattr(app.wsgi_app, "_flask", None)
    status, _, _, (line,) = Observed(app, app.wsgi_app)(REQUESTS[name](), caplog)
    assert (status, line["message"], line["status"]) == ("200 OK", "request", 200)


def test_no_hook_of_the_application_is_missing_in_front_of_it(make_app: Callable[..., flask.Flask]) -> None:
    """A hook that is added for all routes must get its counterpart in service/direct.py, and its name here."""
    app = make_app()
    hooks: list[Any] = [app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs]
    names = [[hook.__name__ for hook in by_blueprint.get(None, ())] for by_blueprint in hooks]
    assert names == [["_begin", "before_request"], ["after_request", "_finish"], ["teardown_request"]]
    assert "predict" not in {blueprint for by_blueprint in hooks for blueprint in by_blueprint}
