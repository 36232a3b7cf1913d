"""gunicorn's first process, which on SIGHUP replaces the workers by others with the bundle as it is then.

gunicorn's own reload stops the old workers before the new ones have loaded their model, and ends the service when a
new one can't start.
"""

import contextlib
import logging
import os
import select
import signal
import struct
import time
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

LOG = logging.getLogger("service")
PATIENCE = 120
"""Seconds within which the new workers must be ready."""
_PID = struct.Struct("i")


class Ready:
    """Tells the first process which workers are ready: a pipe that all processes share."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def tell(self, worker: Any) -> None:
        """gunicorn's hook for a worker that has loaded the application."""
        with contextlib.suppress(BlockingIOError):  # nobody reads between two reloads, and nobody needs to
            os.write(self._write, _PID.pack(worker.pid))

    def wait(self, seconds: float) -> set[int]:
        """The processes that have become ready; waits for the first at most this long."""
        if not select.select([self._read], [], [], seconds)[0]:
            return set()
        return {pid for (pid,) in _PID.iter_unpack(os.read(self._read, _PID.size * 10_000))}


class ReloadingArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Replaces the workers without a moment in which nobody answers."""

    def handle_hup(self) -> None:
        """Have the application read its bundle again, and new workers take over; otherwise the old ones stay."""
        if not self.app.renew():
            return
        while self.app.ready.wait(0):
            pass
        fresh = {self.spawn_worker() for _ in range(self.num_workers)}
        if self._become_ready(fresh):
            self.manage_workers()  # ends the oldest, which answer what they have accepted
            LOG.info("the new bundle answers", extra={"fields": {"version": self.app.bundle[0]}})
            return
        for worker in fresh & set(self.WORKERS):
            self.kill_worker(worker, signal.SIGTERM)
        self.app.keep_old("its workers don't start")

    def murder_workers(self) -> None:
        """What gunicorn does once a second; here, too, the application looks whether its API keys have changed."""
        self.app.watch()
        super().murder_workers()

    def _become_ready(self, fresh: set[int]) -> bool:
        waiting, end = set(fresh), time.monotonic() + PATIENCE
        while waiting and time.monotonic() < end:
            waiting -= self.app.ready.wait(0.1)
            try:
                self.reap_workers()
            except HaltServer:  # a worker that can't start would end the service
                return False
            if not fresh <= set(self.WORKERS):
                return False
        return not waiting
