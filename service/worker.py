"""gunicorn's threaded worker, whose stop loses no request that a caller could send.

Three things that gthread does when it stops, and this one doesn't: it leaves connections that wait to be accepted
until its end, and resets them then; it closes a connection whose last answer said that it stays open; and while an idle
connection is open, it sleeps through its whole grace period.
"""

import selectors
from concurrent.futures import Future
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

TICK = 0.2
"""Seconds between two looks for idle connections to close."""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker that takes what waits, closes its socket, and lets each open connection end with an answer."""

    def set_accept_enabled(self, enabled: bool) -> None:
        """As gthread does; and when the worker stops, accept all that waits, so that later callers are refused."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            before = -1
            while before != self.nr_conns:
                before = self.nr_conns
                self.accept(listener)
            listener.close()

    def finish_request(self, conn: Any, fs: "Future[Any]") -> None:
        """As gthread does; but a connection that was promised to stay open stays, for one more request."""
        promised = not self.alive and not fs.cancelled() and fs.exception() is None and fs.result() is True
        if not promised:
            super().finish_request(conn, fs)
            return
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """As gthread does; a stopping worker wakes up to see which idle connections' time is over."""
        super().wait_for_and_dispatch_events(timeout if self.alive else min(timeout, TICK))
