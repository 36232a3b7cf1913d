"""POST /predict without Flask: a WSGI application in front of Flask's, for the requests that get a usual answer.

Flask and the exporter's hooks take several times as long as the prediction. Answers, headers, metrics and log lines are
the same as Flask's (tests/service/test_direct.py compares them). Everything else is handed to Flask with the body that
was read: other routes, other types of content, bodies that the typed decoder refuses, errors of every kind.
"""

import io
import time
from collections.abc import Callable, Iterable, Mapping
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from service import logs
from service.state import State

ROUTE = "/predict"


class Direct:
    """Answers usual requests to /predict itself, and passes on all others."""

    def __init__(self, flask: WSGIApplication, state: Callable[[], State], headers: Mapping[str, str]) -> None:
        self._flask = flask
        self._state = state
        self._headers = [*headers.items()]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = time.perf_counter()
        state = self._state()
        if not _is_usual(environ, state) or state.predictor is None or state.documents is None:
            return self._flask(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        try:
            whole = len(body) == int(environ["CONTENT_LENGTH"])
            answers = state.documents.predict(body, state.settings.max_rows) if whole else None
            answer = None if answers is None else state.documents.answer(answers)
        except Exception:  # happens again in Flask, whose handlers answer, count and log it
            answers = answer = None
        if answers is None or answer is None:
            environ["wsgi.input"] = io.BytesIO(body)
            return self._flask(environ, start_response)
        state.metrics.answered(state.predictor, answers)
        identity = logs.request_id(environ.get("HTTP_X_REQUEST_ID"))
        seconds = time.perf_counter() - begun
        state.metrics.requested("POST", ROUTE, 200, seconds)
        logs.log_request(environ, ROUTE, 200, seconds, identity)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
        start_response("200 OK", [*headers, ("X-Request-ID", identity), *self._headers])
        return [answer]


def _is_usual(environ: WSGIEnvironment, state: State) -> bool:
    """Whether the request is one for /predict, with a body of known length that isn't too large."""
    length = environ.get("CONTENT_LENGTH", "")
    return (
        environ["PATH_INFO"] == ROUTE
        and environ["REQUEST_METHOD"] == "POST"
        and environ.get("CONTENT_TYPE") == "application/json"
        and not environ.get("SCRIPT_NAME")
        and "HTTP_TRANSFER_ENCODING" not in environ
        and "HTTP_CONTENT_ENCODING" not in environ
        and length.isdecimal()
        and len(length) < 12
        and int(length) <= state.settings.max_body_bytes
    )
