"""gunicorn's threaded worker, changed so that no request is lost when it stops.

When gunicorn's gthread worker stops, it has three defects that this worker avoids: it never accepts the waiting
connections and resets them at its end; it closes a connection although its last answer promised keep-alive; and while
an idle connection is open, it waits for its whole grace period.
"""

import selectors
from concurrent.futures import Future
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

TICK = 0.2
"""Seconds between two checks for idle connections that can be closed."""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker that, before it ends, accepts the waiting connections and answers each open connection."""

    def set_accept_enabled(self, enabled: bool) -> None:
        """Like gthread's. A stopping worker also accepts all waiting connections; later connections are refused."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            before = -1
            while before != self.nr_conns:
                before = self.nr_conns
                self.accept(listener)
            listener.close()

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """Like gthread's, but a connection with a promised keep-alive stays open for one more request."""
        promised = not self.alive and not fs.cancelled() and fs.exception() is None and fs.result() is True
        if not promised:
            super().finish_request(conn, fs)
            return
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Like gthread's, but a stopping worker wakes up regularly to close expired idle connections."""
        super().wait_for_and_dispatch_events(timeout if self.alive else min(timeout, TICK))
