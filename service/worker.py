"""gunicorn's worker of the service: an event loop reads requests and sends answers, threads make the answers.

gunicorn's own workers set no limit to the time of a whole request, and lose requests when they stop; docs/serving.md
compares servers. gunicorn itself starts, watches and stops the worker processes.
"""

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gunicorn.workers.base import Worker as Base

from service.connection import Connection
from service.deadlines import Deadlines
from service.pool import Pool
from service.wsgi import Application, Headers, Request

TICK = 0.2
"""Seconds between two looks at the time limits."""
KEEP_ALIVE = 5
"""Seconds that a connection stays open between two requests."""
CONNECTIONS = 4096
"""Connections of a worker; with more of them, the one that has waited longest for its caller is closed."""
OTHER_FILES = 256
"""Files of a worker that aren't connections: the model's libraries, the metrics."""
HELD_BYTES = 64 * 1024 * 1024
"""Bodies in a worker's memory; with more, the caller that has been sending longest is refused."""
PROBES = frozenset({b"/health/live", b"/health/ready", b"/ping", b"/health", b"/v2/health/live", b"/v2/health/ready"})
"""Paths that have a thread of their own: they are answered however many predictions wait."""
METRICS = b"/metrics"
"""It has another thread of its own, because its answers take longer than a probe may wait."""
PROBES_WAITING = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker allows its callers."""

    threads: int
    max_waiting: int
    request_timeout: float
    max_body_bytes: int
    grace: float
    """Seconds that open requests have when the worker stops."""


class Front:
    """What the connections of a worker share."""

    def __init__(
        self,
        application: Application,
        address: tuple[str, str],
        limits: Limits,
        refused: Callable[[str], None],
        knows: Callable[[Headers], bool] = lambda _: True,
    ) -> None:
        self.refused = refused
        self.knows = knows  # whether a request has a key; without, it gets no body read and no thread of predictions
        self.max_body = limits.max_body_bytes
        self.reading = Deadlines(limits.request_timeout)  # callers who send a request
        self.sending = Deadlines(limits.request_timeout)  # callers who take an answer
        self.idle = Deadlines(KEEP_ALIVE)  # callers who have no request
        self.stopping = False
        self.connections: set[Connection] = set()
        self._allowed = connections_allowed()
        self._held = 0

        def pool(threads: int, waiting: int) -> Pool:
            return Pool(
                application,
                address,
                threads=threads,
                waiting=waiting,
                patience=limits.request_timeout,
                stopping=lambda: self.stopping,
                refused=self.refused,
            )

        self._predictions = pool(limits.threads, limits.max_waiting)
        self._probes = pool(1, PROBES_WAITING)
        self._metrics = pool(1, PROBES_WAITING)
        self._strangers = pool(1, PROBES_WAITING)

    def hand_over(self, connection: Connection, request: Request) -> None:
        """Have a complete request answered."""
        if request.path in PROBES:
            pool = self._probes
        elif request.path == METRICS:
            pool = self._metrics
        else:
            pool = self._predictions if request.known else self._strangers
        pool.submit(connection, request)

    def opened(self, connection: Connection) -> None:
        """A connection begins."""
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)

    def holds(self, change: int) -> None:
        """The bodies in memory have grown by `change` bytes, or become fewer if it is negative."""
        self._held += change
        if change > 0 and self._held > HELD_BYTES:
            self.reading.expire_first()

    def make_room(self) -> bool:
        """Whether a further connection can be accepted, if need be instead of another one."""
        return len(self.connections) < self._allowed or self.idle.expire_first() or self.reading.expire_first()

    def tick(self) -> None:
        """Close the connections whose callers are too slow."""
        for deadlines in (self.reading, self.sending, self.idle):
            deadlines.expire()

    def stop(self) -> None:
        """From now on each answer is the last on its connection; one without a request has KEEP_ALIVE seconds left."""
        self.stopping = True
        for connection in self.connections:
            connection.hurry()


def connections_allowed() -> int:
    """CONNECTIONS, or fewer if the system gives the process fewer files; raises its limit as far as needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(most - OTHER_FILES, most // 2)


class Worker(Base):  # type: ignore[misc]  # gunicorn has no types
    """A worker process."""

    def init_signals(self) -> None:
        """The event loop gets the signals; until it runs, a signal ends the process."""
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def run(self) -> None:
        """Serve until a signal stops the process, or its parent is gone."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._stop, self._grace = asyncio.Event(), self.app.limits.grace
        loop.add_signal_handler(signal.SIGTERM, self._end, self._grace)
        for at_once in (signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(at_once, self._end, 0)
        loop.add_signal_handler(signal.SIGUSR1, self.log.reopen_files)
        host, port = self.sockets[0].getsockname()[:2]
        self._front = Front(self.wsgi, (str(host), str(port)), self.app.limits, self.app.refused, self.app.knows)
        self._opening: set[asyncio.Task[Any]] = set()
        for listener in self.sockets:
            loop.add_reader(listener.fileno(), self._accept_some, listener)
        while self.alive and self.ppid == os.getppid():
            await self._pause()
        # What has been accepted, or waits to be, is answered; later callers are refused a connection.
        for listener in self.sockets:
            loop.remove_reader(listener.fileno())
            while self._accept(listener):
                pass
            listener.close()
        self._front.stop()
        end = loop.time() + self._grace
        while (self._front.connections or self._opening) and loop.time() < end and self._grace:
            await self._pause()

    def _end(self, grace: float) -> None:
        self.alive = False
        self._grace = min(self._grace, grace)
        self._stop.set()

    async def _pause(self) -> None:
        """Wait for a tick, or until a signal stops the worker."""
        self.notify()
        self._front.tick()
        if self.alive:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), TICK)
        else:
            await asyncio.sleep(TICK / 10)

    def _accept_some(self, listener: Any) -> None:
        """Accept few connections at a time, so that the workers share them; more if there are many already."""
        for _ in range(1 + len(self._front.connections) // 32):
            if not self._accept(listener):
                return

    def _accept(self, listener: Any) -> bool:
        """Accept a connection; False if none waits."""
        if not self._front.make_room():
            return False
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker was faster, or the caller has left
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(lambda: Connection(self._front), accepted))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True
