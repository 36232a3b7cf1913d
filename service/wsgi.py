"""From a request to WSGI's environ, and from the application's answer to the bytes that are sent."""

import io
import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from service.errors import ApiError

LOG = logging.getLogger("service")
Application = Callable[[dict[str, Any], Callable[..., None]], Iterable[bytes]]
Headers = list[tuple[bytes, bytes]]
BODILESS = frozenset({"204", "304"})


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request. Header names are in lower case."""

    method: str
    target: bytes
    version: str
    headers: Headers
    body: bytes
    length: int | None
    """The length of a body that was too large to be read, else None."""
    keep: bool
    """Whether the caller wants the connection to stay open."""
    peer: str
    known: bool = True
    """Whether it has an API key, or needs none."""

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


@dataclass(slots=True)
class Draft:
    """A request while it is read."""

    target: bytes = b""
    headers: Headers | None = None
    """None until the head is complete."""
    body: bytearray = field(default_factory=bytearray)
    declared: int | None = None
    """Content-Length."""
    known: bool = True
    """As the request's."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes to send; `keep`: whether the connection stays open after the `end`."""

    data: bytes
    end: bool
    keep: bool


@lru_cache(maxsize=512)
def _key(name: bytes) -> str:
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def environ_of(request: Request, host: str, port: str) -> dict[str, Any]:
    """The environ of PEP 3333, with the whole body."""
    path, _, query = request.target.partition(b"?")
    if not path.startswith(b"/"):  # a proxy's form, with the server's name, or the * of OPTIONS
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "REMOTE_ADDR": request.peer,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        if b"_" in name or name == b"transfer-encoding":
            continue  # a_b would pass for a-b, and the body has been decoded
        key = _key(name)
        text = value.decode("latin-1")
        if key in environ:
            text = f"{environ[key]}{';' if name == b'cookie' else ','}{text}"
        environ[key] = text
    if request.body or request.length is not None:
        environ["CONTENT_LENGTH"] = str(len(request.body) if request.length is None else request.length)
    return environ


def answer(
    application: Application, request: Request, address: tuple[str, str], stopping: Callable[[], bool]
) -> Iterator[Part]:
    """The answer: a single part if its length is known, else a stream of parts. Raises nothing: a 500 says what failed.

    `address`: the server's host and port. If the worker is `stopping` when the answer's head is made, the connection
    ends with it.
    """
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:  # noqa: ARG001
        started.append((status, headers))

    begun = False
    try:
        parts = application(environ_of(request, *address), start_response)
        try:
            status, headers = started[-1]
            keep = request.keep and not stopping()
            names = {name.lower() for name, _ in headers}
            bodiless = request.method == "HEAD" or status[:3] in BODILESS
            if bodiless or "content-length" in names:
                body = b"".join(parts)
                yield Part(_head(status, headers, keep=keep) + (b"" if bodiless else body), end=True, keep=keep)
                return
            chunked = request.version == "1.1"
            keep = keep and chunked
            extra = [("Transfer-Encoding", "chunked")] if chunked else []
            begun = True
            yield Part(_head(status, [*headers, *extra], keep=keep), end=False, keep=keep)
            for part in parts:
                if part:
                    yield Part(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part, end=False, keep=keep)
            yield Part(b"0\r\n\r\n" if chunked else b"", end=True, keep=keep)
        finally:
            getattr(parts, "close", lambda: None)()
    except Exception:
        LOG.exception("unexpected error")
        # A stream that breaks off ends without its last chunk, so that the caller can tell.
        message = "unexpected error; the log contains it"
        yield Part(b"" if begun else refusal(500, "internal_error", message, request.target), end=True, keep=False)


def _head(status: str, headers: list[tuple[str, str]], *, keep: bool) -> bytes:
    connection = "keep-alive" if keep else "close"
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return (f"HTTP/1.1 {status}\r\nDate: {_date(int(time.time()))}\r\nConnection: {connection}\r\n{lines}\r\n").encode(
        "latin-1"
    )


def refusal(
    status: int, code: str, message: str, target: bytes = b"", *, keep: bool = False, retry_after: int | None = None
) -> bytes:
    """An answer of the server itself, to a request that the application doesn't see; in the form of its protocol."""
    request_id = uuid.uuid4().hex
    path = target.partition(b"?")[0].decode("latin-1")
    body = msgspec.json.encode(ApiError(status, code, message).body(path, request_id))
    retry = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nDate: {_date(int(time.time()))}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\nContent-Type: application/json\r\n{retry}"
        f"Content-Length: {len(body)}\r\nX-Request-ID: {request_id}\r\n\r\n"
    ).encode("latin-1") + body
