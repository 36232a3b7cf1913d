"""One HTTP/1.1 connection: reads whole requests, within limits of size and time, and writes the answers in order."""

import asyncio
import threading
from collections import deque
from typing import Protocol, cast

import httptools

from service.deadlines import Deadlines
from service.wsgi import Draft, Headers, Request, refusal

HEAD_BYTES, HEADERS = 32 * 1024, 100
TOO_SLOW = "the request was not complete after {} s: send it faster, or set REQUEST_TIMEOUT higher"
TOO_LARGE = "the request's head is too large: the server reads 100 headers and 32 KiB"


class Front(Protocol):
    """What a connection needs of its worker; service/worker.py has it, and says what each part is for."""

    max_body: int
    reading: Deadlines
    sending: Deadlines
    idle: Deadlines

    def opened(self, connection: "Connection") -> None: ...

    def closed(self, connection: "Connection") -> None: ...

    def hand_over(self, connection: "Connection", request: Request) -> None: ...

    def holds(self, change: int) -> None: ...

    def refused(self, reason: str) -> None: ...

    def knows(self, headers: Headers) -> bool: ...


class Connection(asyncio.Protocol):
    """A connection. The event loop's thread alone calls its methods."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._peer = ""
        self._waits: Deadlines | None = None
        self._draft: Draft | None = None
        self._unread = 0  # bytes of a head that isn't complete
        self._fields: Headers = []
        self._ready: deque[Request] = deque()  # complete, behind the request that is being answered
        self._answered: Request | None = None
        self._paused = False
        self._full = False  # the caller hasn't taken what was sent
        self._last = False  # nothing more is read: what still arrives is dropped
        self._linger = False
        self.gone = False
        """The caller has left: nobody waits for the answer."""
        self.taken = threading.Event()
        """Set when the caller has taken what was sent: the next part of a stream can follow."""

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The start: from here on, the caller has a limited time for the whole request."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)
        self._peer = (self._transport.get_extra_info("peername") or ("",))[0]
        self._front.opened(self)
        self._wait(self._front.reading)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        if self._last:
            return
        if self._waits is self._front.idle:
            self._wait(self._front.reading)
        early = self._answered is not None
        self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._last = True  # of the protocols that it could change to, the server speaks none: it answers and closes
        except httptools.HttpParserError as error:
            self._refuse(400, "bad_request", f"this is not HTTP/1.1: {str(error)[:100].lower()}")
        if not self._last and self._unread > HEAD_BYTES and (self._draft is None or self._draft.headers is None):
            self._refuse(431, "head_too_large", TOO_LARGE)
        # A caller who sends requests before the answers to earlier ones gets them read one by one.
        if (early or self._ready) and self._answered is not None and not self._paused and not self._last:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The caller sends nothing more, but may still wait for answers."""
        self._last = True
        return self._answered is not None or self._full

    def pause_writing(self) -> None:
        """The caller doesn't take the answer: it has a limited time for it."""
        self._full = True
        self._wait(self._front.sending)

    def resume_writing(self) -> None:
        """The caller has taken all that was sent."""
        self._full = False
        self.taken.set()
        if self._answered is None and self._ready:
            self._next()
        else:
            self._rest()

    def connection_lost(self, _: Exception | None) -> None:
        """The end."""
        self.gone = True
        self._wait(None)
        open_requests = [self._draft, self._answered, *self._ready]
        self._front.holds(-sum(len(each.body) for each in open_requests if each is not None))
        self._draft = None
        self._ready.clear()
        self.taken.set()
        self._front.closed(self)

    # --- what the parser calls

    def on_message_begin(self) -> None:
        """A request begins."""
        self._draft, self._fields = Draft(), []

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        if self._draft is not None:
            self._draft.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; headers behind the body are dropped, because nothing has checked them."""
        if self._draft is not None and self._draft.headers is None:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete: decide whether the body is read."""
        draft = self._draft
        if draft is None or self._last:
            return
        draft.headers, self._unread = self._fields, 0
        size = len(draft.target) + sum(len(name) + len(value) for name, value in draft.headers)
        if size > HEAD_BYTES or len(draft.headers) > HEADERS:
            self._refuse(431, "head_too_large", TOO_LARGE)
            return
        given, draft.known = dict(draft.headers), self._front.knows(draft.headers)
        length = int(given.get(b"content-length", 0))
        if given.get(b"transfer-encoding", b"chunked").strip().lower() != b"chunked":
            self._refuse(501, "not_implemented", "of the transfer encodings, the server reads chunked only")
        elif length > self._front.max_body or (not draft.known and (length or b"transfer-encoding" in given)):
            draft.declared = length
            self._cut(draft)
        elif given.get(b"expect", b"").lower() == b"100-continue" and self._answered is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        draft = self._draft
        if draft is None or self._last:
            return
        draft.body += part
        self._front.holds(len(part))
        if not self._last and len(draft.body) > self._front.max_body:
            draft.declared = len(draft.body)
            self._cut(draft)

    def on_message_complete(self) -> None:
        """A request is complete: have it answered, after those before it."""
        self._unread = 0
        if self._draft is not None and not self._last:
            self._complete(self._draft, keep=self._parser.should_keep_alive() and not self._parser.should_upgrade())

    # --- what the server calls

    def send(self, data: bytes, *, end: bool, keep: bool) -> None:
        """Send an answer, or a part of it. After the `end`, the connection stays open if `keep`."""
        if self.gone or self._answered is None:
            return
        self._transport.write(data)
        if not end:
            if not self._full:
                self.taken.set()
            return
        self._front.holds(-len(self._answered.body))
        self._answered = None
        if not keep:
            self._last = True
            self._end()
        elif self._ready:
            if not self._full:  # else a caller who takes no answers could fill the memory with them
                self._next()
        elif self._last:
            self._end()
        else:
            self._read_on()
            self._rest()

    def hold(self, seconds: float) -> None:
        """Read no further request for some time."""
        if not self._paused and not self._last and not self.gone:
            self._paused = True
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        if self._paused and self._answered is None and not self.gone:
            self._paused = False
            self._transport.resume_reading()

    def expire(self) -> None:
        """The caller's time is over."""
        if self._waits in (None, self._front.sending):
            self._transport.abort()
            return
        if self._waits is self._front.reading and self._draft is not None:
            self._front.refused("too_slow")
            message = TOO_SLOW.format(self._front.reading.seconds)
            self._transport.write(refusal(408, "too_slow", message, self._draft.target))
        self._last = True
        self._transport.close()

    def hurry(self) -> None:
        """The worker stops: a caller who hasn't begun a request has only the time of an idle connection left for it."""
        if self._waits is self._front.reading and self._draft is None:
            self._wait(self._front.idle)

    def _complete(self, draft: Draft, *, keep: bool) -> None:
        self._draft = None
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            target=draft.target,
            version=self._parser.get_http_version(),
            headers=draft.headers or [],
            body=bytes(draft.body),
            length=draft.declared,
            keep=keep,
            peer=self._peer,
            known=draft.known,
        )
        self._ready.append(request)
        if self._answered is None:
            self._next()

    def _cut(self, draft: Draft) -> None:
        """The body isn't read: without it, the application answers with its own error; then the connection ends."""
        self._front.holds(-len(draft.body))
        draft.body = bytearray()
        self._complete(draft, keep=False)
        self._last = self._linger = True

    def _next(self) -> None:
        self._answered = self._ready.popleft()
        self._rest()
        self._front.hand_over(self, self._answered)

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Refuse what was sent, and end the connection after the requests before it are answered; once only."""
        if self._last:
            return
        draft, self._draft = self._draft or Draft(), None
        self._front.holds(-len(draft.body))
        self._last = self._linger = True
        if self._answered is None:
            self._front.refused("malformed")
            self._transport.write(refusal(status, code, message, draft.target))
            self._end()

    def _end(self) -> None:
        """Close after all is sent. If a caller may still be sending, an immediate end would destroy the answer."""
        if self._linger and not self._transport.is_closing():
            self._transport.write_eof()
            self._wait(self._front.sending)
        else:
            self._transport.close()
            self._rest()

    def _rest(self) -> None:
        """Choose the time limit that fits what the connection waits for."""
        if self._full or (self._last and self._answered is None):
            self._wait(self._front.sending)
        elif self._answered is not None:
            self._wait(None)
        elif self._draft is not None:
            self._wait(self._front.reading)
        else:
            self._wait(self._front.idle)

    def _wait(self, deadlines: Deadlines | None) -> None:
        if self._waits is not None:
            self._waits.stop(self)
        self._waits = deadlines
        if deadlines is not None and not self.gone:
            deadlines.start(self)
