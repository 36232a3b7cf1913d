"""Token buckets that all workers of a service share: a file per name, with the time at which the bucket is full again.

The generic cell rate algorithm (ITU-T I.371) needs no more than this number. The clock is the system's monotonic one,
which is the same in all processes.
"""

import fcntl
import math
import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".limit"
_NUMBER = struct.Struct("d")


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: `burst` tokens at most, `per_second` new ones."""

    per_second: float
    burst: int

    @classmethod
    def of(cls, per_second: float, burst: int | None = None) -> "Limit":
        """Without `burst`: as many as in a second."""
        return cls(per_second, burst or max(1, math.ceil(per_second)))


class Buckets:
    """The buckets by name; safe to use from several threads and processes."""

    def __init__(self, folder: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Without a folder, the buckets are this object's own."""
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._own: dict[str, float] = {}
        self._files: dict[str, int] = {}

    def take(self, name: str, limit: Limit) -> float:
        """Take a token: 0 when there is one, else the seconds until the next."""
        with self._lock:
            if self._folder is None:
                wait, self._own[name] = _taken(self._own.get(name, 0.0), self._clock(), limit)
                return wait
            file = self._file(name)
            fcntl.lockf(file, fcntl.LOCK_EX)  # the system releases it, too, when the process dies
            try:
                stored = os.pread(file, _NUMBER.size, 0)
                full = _NUMBER.unpack(stored)[0] if len(stored) == _NUMBER.size else 0.0
                wait, full = _taken(full, self._clock(), limit)
                os.pwrite(file, _NUMBER.pack(full), 0)
                return wait
            finally:
                fcntl.lockf(file, fcntl.LOCK_UN)

    def _file(self, name: str) -> int:
        if name not in self._files:
            path = f"{self._folder}/{name}{SUFFIX}"
            self._files[name] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._files[name]


def _taken(full: float, now: float, limit: Limit) -> tuple[float, float]:
    """The seconds to wait for a token, and the time at which the bucket is full again: later, if a token was taken."""
    full = max(full, now)
    wait = full - now - (limit.burst - 1) / limit.per_second
    return (wait, full) if wait > 1e-9 else (0.0, full + 1 / limit.per_second)
