"""The service's own server around an application, on loopback: for clients that bring their own connections."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, cast

import flask

from service.connection import Connection
from service.worker import Front, Limits
from service.wsgi import Application

PATIENCE = 30
"""Seconds after which a test that waits for an event fails."""
LIMITS = Limits(threads=4, max_waiting=64, request_timeout=PATIENCE, max_body_bytes=16 << 20, grace=1)


class RunningFront:
    """A front on a port of its own, in a thread's event loop, whose time limits are looked at all the time."""

    def __init__(self, application: Application, limits: Limits) -> None:
        self.limits = limits
        self.refused: Counter[str] = Counter()
        self.front: Front
        self.port = 0
        self._application = application
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self.front = Front(
            self._application, ("server", "80"), self.limits, lambda reason: self.refused.update([reason])
        )
        server = await self._loop.create_server(lambda: Connection(self.front), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        while not self._end.is_set():
            self.front.tick()
            await asyncio.sleep(0.01)
        server.close()
        for connection in list(self.front.connections):
            connection.expire()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)
        self._loop.close()

    def in_loop(self, function: Callable[[], Any]) -> Any:
        """What the function returns in the event loop's thread."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)


@contextmanager
def served(app: flask.Flask) -> Iterator[str]:
    """host:port of the application, as a worker serves it."""
    with RunningFront(cast("Application", app), LIMITS) as running:
        yield f"127.0.0.1:{running.port}"
