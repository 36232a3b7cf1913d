"""Threads in which the application answers requests, behind a bounded queue."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from service.wsgi import Application, Part, Request, answer, refusal

if TYPE_CHECKING:
    from service.connection import Connection

OVERLOADED = "the server has more requests than it can answer: try again later"
RETRY_AFTER = 1
"""Seconds: the queue is empty again after a fraction of this time."""


HOLD = 0.5
"""Seconds for which a refused caller's next request isn't read: else callers who try again at once would take the time
that the others need."""


class Pool:
    """A pool of threads. The event loop submits requests, and gets the answers back."""

    def __init__(
        self,
        application: Application,
        address: tuple[str, str],
        *,
        threads: int,
        waiting: int,
        patience: float,
        stopping: Callable[[], bool],
        refused: Callable[[str], None],
    ) -> None:
        """At most `waiting` requests wait for a thread; each of them no longer than `patience` seconds."""
        self._application = application
        self._address = address
        self._limit = threads + waiting
        self._patience = patience
        self._stopping = stopping
        self._refused = refused
        self._unfinished = 0
        self._jobs: queue.SimpleQueue[tuple[Connection, Request, float]] = queue.SimpleQueue()
        self._done: deque[tuple[Connection, Part]] = deque()
        self._woken = False
        self._loop = asyncio.get_running_loop()
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, connection: "Connection", request: Request) -> None:
        """Have the request answered, or refuse it with a 503."""
        if self._unfinished >= self._limit:
            self._refused("overloaded")
            keep = request.keep and not self._stopping()
            connection.send(_overloaded(request, keep=keep), end=True, keep=keep)
            connection.hold(HOLD)
            return
        self._unfinished += 1
        self._jobs.put((connection, request, monotonic()))

    def _work(self) -> None:
        while True:
            connection, request, since = self._jobs.get()
            if connection.gone:
                self._post(connection, Part(b"", end=True, keep=False))
            elif monotonic() - since > self._patience:
                self._refused("overloaded")
                self._post(connection, Part(_overloaded(request, keep=False), end=True, keep=False))
            else:
                self._answer(connection, request)

    def _answer(self, connection: "Connection", request: Request) -> None:
        waited = 0.0
        for part in answer(self._application, request, self._address, self._stopping):
            if not part.end:
                connection.taken.clear()
            self._post(connection, part)
            if not part.end:
                # A stream is made no faster than the caller takes it. All its parts together have the time of an answer
                # that is sent at once: else a caller who takes them slowly would keep the thread from others.
                begun = monotonic()
                taken = connection.taken.wait(max(0.0, self._patience - waited))
                waited += monotonic() - begun
                if not taken:
                    self._loop.call_soon_threadsafe(connection.expire)
                if connection.gone or not taken:
                    self._post(connection, Part(b"", end=True, keep=False))
                    return

    def _post(self, connection: "Connection", part: Part) -> None:
        self._done.append((connection, part))
        if not self._woken:  # if it is set, the event loop hasn't begun to look, so it will see this part
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False
        while self._done:
            connection, part = self._done.popleft()
            if part.end:
                self._unfinished -= 1
            connection.send(part.data, end=part.end, keep=part.keep)


def _overloaded(request: Request, *, keep: bool) -> bytes:
    return refusal(503, "overloaded", OVERLOADED, request.target, keep=keep, retry_after=RETRY_AFTER)
