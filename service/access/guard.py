"""A WSGI application in front of all others: it lets those requests pass that may, and answers the others itself.

It answers without Flask, so that a caller without a key costs little. What isn't named here as open needs a key: so no
other spelling of a path leads around it.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import msgspec

from service import logs
from service.access.keys import PREFIX, TOKEN, Key, KeyFile, Keys
from service.access.limits import Buckets
from service.access.proxies import SAID, parse, within
from service.errors import ApiError
from service.metrics import METHODS, ModelMetrics
from service.settings import Network

OPEN = frozenset({"/health/live", "/health/ready", "/ping", "/health", "/v2/health/live", "/v2/health/ready"})
"""Probes: load balancers and clusters ask them without a key."""
PAGES = frozenset({"/", "/docs"})
"""Pages that ask for a key: without one, they show nothing else (service/routes/pages.py)."""
METRICS = "/metrics"
NEAR = "atlas.near"
"""Set in WSGI's environ if a request for metrics comes from one of their networks."""
SENT = {b"authorization": "HTTP_AUTHORIZATION", b"x-api-key": "HTTP_X_API_KEY"}
"""The headers that can have a key, by their names in WSGI's environ."""
CREDENTIALS = frozenset(SENT.values())
PHRASES = {400: "400 Bad Request", 401: "401 Unauthorized", 429: "429 Too Many Requests"}
HOW = "send the header Authorization: Bearer KEY, or X-API-Key: KEY"


class RefusedError(ApiError):
    """Why a request isn't let in."""

    def __init__(self, status: int, code: str, message: str, reason: str, **headers: str) -> None:
        super().__init__(status, code, message)
        self.reason = reason
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]


class Guard:
    """Asks for an API key in front of an application, and marks requests from the networks that may read metrics."""

    def __init__(
        self,
        application: WSGIApplication,
        keys: KeyFile | None,
        networks: Sequence[Network],
        buckets: Buckets,
        metrics: ModelMetrics,
        routes: Collection[str],
        assets: Collection[str],
        headers: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`networks` may read /metrics without a key; logs and metrics may name `routes`; `assets` are pages' files."""
        self._application = application
        self._keys = keys
        self._networks = networks
        self._buckets = buckets
        self._metrics = metrics
        self._routes = frozenset(routes)
        self._open = OPEN.union(assets)
        self._headers = [*headers.items()]
        self._clock = clock
        if keys is not None:
            metrics.keys_broken(keys.broken is not None)
            keys.watchers.append(metrics.keys_broken)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path in self._open or (path in PAGES and not CREDENTIALS & environ.keys()):
            return self._application(environ, start_response)
        begun = time.perf_counter()
        # Also if nobody sends a key, as for metrics, which say whether the file can be used.
        keys = None if self._keys is None else self._keys.current()
        try:
            if path == METRICS and self._is_near(environ):
                environ[NEAR] = True
            elif keys is not None:
                environ[logs.KEY] = self._admit(environ, keys).name
        except RefusedError as refusal:
            return self._refuse(refusal, environ, start_response, begun)
        return self._application(environ, start_response)

    def knows(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers has a key, so that its body is worth reading; doesn't count it."""
        if self._keys is None:
            return True
        environ: dict[str, str] = {}
        for header, value in headers:
            if header in SENT:  # joined as service/wsgi.py does
                name, text = SENT[header], value.decode("latin-1")
                environ[name] = f"{environ[name]},{text}" if name in environ else text
        try:
            return self._keys.current().find(_token(environ)) is not None
        except RefusedError:
            return False

    def _is_near(self, environ: WSGIEnvironment) -> bool:
        """Whether the request comes from one of the networks, and doesn't come through a proxy that isn't known."""
        peer = parse(environ.get("REMOTE_ADDR", ""))
        return peer is not None and within(peer, self._networks) and not any(header in environ for header in SAID)

    def _admit(self, environ: WSGIEnvironment, keys: Keys) -> Key:
        """The key of the request, counted; raises RefusedError."""
        if PREFIX in environ.get("QUERY_STRING", ""):
            message = f"an API key in the address ends up in logs: make a new key, and {HOW}"
            raise RefusedError(400, "key_in_address", message, "key_in_address")
        key = keys.find(_token(environ))
        if key is None:
            raise _unauthorized("the API key is not known", "unknown_key")
        if key.expires <= self._clock():
            self._metrics.key_used(key.name, "expired")
            environ[logs.KEY] = key.name
            raise _unauthorized("the API key has expired", "expired_key")
        if key.limit is not None and (wait := self._buckets.take(key.name, key.limit)):
            self._metrics.key_used(key.name, "limited")
            environ[logs.KEY] = key.name
            message = f"the API key's limit of {key.limit.per_second:g} requests per second is used up"
            raise RefusedError(429, "too_many_requests", message, "rate_limit", Retry_After=str(math.ceil(wait)))
        self._metrics.key_used(key.name, "admitted")
        return key

    def _refuse(
        self, refusal: RefusedError, environ: WSGIEnvironment, start_response: StartResponse, begun: float
    ) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        route = path if path in self._routes else None
        identity = logs.request_id(environ.get("HTTP_X_REQUEST_ID"))
        body = msgspec.json.encode(refusal.body(path, identity))
        seconds = time.perf_counter() - begun
        self._metrics.turned_away(refusal.reason)
        if method in METHODS:
            self._metrics.requested(method, str(route), refusal.status, seconds)
        logs.log_request(environ, route, refusal.status, seconds, identity)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *refusal.headers]
        start_response(PHRASES[refusal.status], [*headers, ("X-Request-ID", identity), *self._headers])
        return [body]


def _token(environ: Mapping[str, Any]) -> str:
    """The key that the request sends, in either header."""
    token: str | None = environ.get("HTTP_X_API_KEY")
    scheme, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        if token is not None and token != bearer.strip(" "):
            raise _unauthorized("Authorization and X-API-Key contain different keys", "unknown_key")
        token = bearer.strip(" ")
    if token is None:
        raise RefusedError(401, "unauthorized", f"an API key is needed: {HOW}", "no_key", WWW_Authenticate=CHALLENGE)
    if not TOKEN.fullmatch(token):
        raise _unauthorized("the API key is not known", "unknown_key")
    return token


CHALLENGE = 'Bearer realm="atlas"'


def _unauthorized(message: str, reason: str) -> RefusedError:
    challenge = f'{CHALLENGE}, error="invalid_token", error_description="{message}"'
    return RefusedError(401, "unauthorized", message, reason, WWW_Authenticate=challenge)
