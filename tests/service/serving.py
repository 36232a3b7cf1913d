"""The application behind the service's own server, on loopback: for clients that bring their own connections."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import flask

from service.connection import Connection
from service.worker import Front, Limits
from service.wsgi import Application

LIMITS = Limits(threads=4, max_waiting=64, request_timeout=30, max_body_bytes=16 << 20, grace=1)


@contextmanager
def served(app: flask.Flask) -> Iterator[str]:
    """host:port of the application, as a worker serves it; a thread runs the event loop."""
    loop, up, end = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    ports: list[int] = []

    async def serve() -> None:
        front = Front(cast("Application", app), ("127.0.0.1", "80"), LIMITS, lambda _: None)
        server = await loop.create_server(lambda: Connection(front), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        up.set()
        await end.wait()
        server.close()
        for connection in list(front.connections):
            connection.drop()
        await asyncio.sleep(0)  # their ends are noticed

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert up.wait(30)
    try:
        yield f"127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
        loop.close()
