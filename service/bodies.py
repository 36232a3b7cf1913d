"""Bodies of requests and answers: content types, character sets, compression, and limits to their size."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any, TypeVar

import flask
import msgspec
from werkzeug.exceptions import RequestEntityTooLarge

from service.errors import ApiError

Kind = TypeVar("Kind")

WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""zlib's window argument for each encoding of HTTP."""
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
SMALLEST = 1024
"""Bytes from which an answer is compressed: below it, compression saves no packet."""


def check_type(*accepted: str) -> str:
    """The content type of the request, which must be among `accepted` ("": none), in UTF-8; a 415 otherwise."""
    mimetype = flask.request.mimetype
    if mimetype not in accepted:
        raise ApiError(415, "unsupported_media_type", f"send Content-Type: {' or '.join(filter(None, accepted))}")
    charset = flask.request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in CHARSETS:
        raise ApiError(415, "unsupported_media_type", f"the charset {charset[:50]!r} can't be read: send UTF-8")
    return mimetype


def read_body() -> bytes:
    """The request's body, inflated if it is compressed.

    A 413 when it is larger than the limit before or after that, a 400 when it can't be inflated, a 415 when its
    encoding isn't known.
    """
    limit: int = flask.current_app.config["MAX_CONTENT_LENGTH"]
    body = flask.request.get_data(cache=False)
    if flask.request.content_length is None and len(body) >= limit:
        raise RequestEntityTooLarge  # a chunked body was cut off at the limit
    encoding = flask.request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return body
    if encoding not in WINDOWS:
        raise ApiError(
            415, "unsupported_media_type", f"Content-Encoding {encoding[:50]!r} can't be read: send gzip or deflate"
        )
    try:
        return b"".join(_inflated(body, WINDOWS[encoding], limit))
    except zlib.error as error:
        raise ApiError(400, "not_compressed", f"the body can't be inflated as {encoding}: {error}") from None


def _inflated(body: bytes, window: int, limit: int) -> Iterator[bytes]:
    """The content of the members of a compressed body; never more than `limit` bytes are in memory."""
    if window == zlib.MAX_WBITS and int.from_bytes(body[:2], "big") % 31:
        window = -window  # some callers send deflate without zlib's header, whose two bytes are a multiple of 31
    while body:
        member = zlib.decompressobj(window)
        found = member.decompress(body, limit + 1)
        limit -= len(found)
        if limit < 0:
            raise RequestEntityTooLarge
        if not member.eof:
            raise zlib.error("it is cut off")
        yield found
        body = member.unused_data
        if body and window <= zlib.MAX_WBITS:
            raise zlib.error("something follows it")


def parse_json(body: bytes, *, bare_nan: bool) -> Any:
    """A JSON document; NaN and Infinity are a 400 unless `bare_nan`."""

    def constant(name: str) -> float:
        if not bare_nan:
            raise ValueError(f"{name} is not JSON; leave the field out, or send null, when the value is unknown")
        return float(name)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise ValueError("an object contains a key twice")
        return document

    try:
        return json.loads(body.decode("utf-8"), parse_constant=constant, object_pairs_hook=unique)
    except RecursionError:
        raise ApiError(400, "not_json", "the body is nested too deeply") from None
    except ValueError as error:  # includes bad UTF-8 and numbers of thousands of digits
        raise ApiError(400, "not_json", f"the body is not JSON: {str(error)[:200]}") from None


def read_as(document: Any, kind: type[Kind], code: str) -> Kind:
    """A JSON document as that type; otherwise a 422 with this code that names the place and what is expected there."""
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # half of a surrogate pair can't be compared
        raise ApiError(422, code, f"the document can't be read: {str(error)[:300]}") from None


def compress(response: flask.Response) -> flask.Response:
    """The answer, compressed as the caller accepts; an answer that is short stays as it is."""
    response.vary.add("Accept-Encoding")
    if response.direct_passthrough or response.headers.get("Content-Encoding") or len(response.get_data()) < SMALLEST:
        return response
    best = flask.request.accept_encodings.best_match(("gzip", "deflate", "identity"))
    if best not in WINDOWS:
        return response
    # Level 1: JSON of numbers hardly shrinks further, and higher levels take several times longer.
    body = gzip.compress(response.get_data(), 1) if best == "gzip" else zlib.compress(response.get_data(), 1)
    response.set_data(body)
    response.headers["Content-Encoding"] = best
    return response
