"""Rows of the feature store in memory: what was read once stays, and a thread reads it anew when it changes.

A request waits for other rows until a deadline; what comes later is in memory for the next request.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from ml.features.store import OnlineStore, Progress, Row, Span, StoreError
from ml.features.views import DAY, EARLIEST, LATEST, SECOND, Value, View, Views

LOG = logging.getLogger("service")
EACH = 0.0001
"""Seconds that a request waits in addition for each entity that isn't in memory: a batch may need hundreds."""
REFRESH = 0.5
"""Seconds between two looks at the store's progress."""
MOST_ROWS = 200_000
"""Rows in memory at most, some 60 MB: callers can ask for any entities and times. A chunk counts as a row, too."""
BATCH = 500
"""Chunks that the thread reads at a time."""

Trouble = Literal["slow", "down", "empty", "late"]
"""Why values of the store are missing: it didn't answer in time, it can't be used, it has nothing of these views, or
its materialiser is late."""


class Chunk:
    """An entity's rows in a span of time."""

    __slots__ = ("rows", "stamps", "used")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.stamps = [row.timestamp for row in rows]
        self.rows = [row.values for row in rows]
        self.used = True


Key = tuple[int, tuple[Value, ...], int]
"""The place of a view, the entity's keys, and the number of the chunk: look-ups for its times find their rows in it."""


class Memory:
    """Rows of one set of views; safe to use from several threads. Make it in the process that uses it."""

    def __init__(
        self,
        views: Views,
        store: OnlineStore,
        *,
        deadline: float,
        watch: Callable[[float], None] = lambda _: None,
        real: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`deadline`: seconds that a request waits for the store, besides its `round_trip`; `watch`: is told the
        materialiser's lag in seconds, again and again; `real`: the wall clock, in microseconds since 1970.
        """
        self.progress: Progress | None = None
        """How far the materialiser has come, as far as is known."""
        self.trouble: Trouble | None = "empty"
        """Why the store can't be used now; None if it can."""
        self.chunks: dict[Key, Chunk] = {}
        """The ones that were read longest ago come first."""
        self.rows = 0
        """The rows and the chunks."""
        self._views = [(view, chunk_span(view)) for view in views.views]
        self._store, self._deadline = store, deadline
        self._real, self._watch = real, watch
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="features")
        self._stopped = threading.Event()
        self._look()
        threading.Thread(target=self._follow, name="features", daemon=True).start()

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def now(self) -> int:
        """The present, which in a replay isn't the wall clock's; microseconds since 1970."""
        real, progress = self._real(), self.progress
        return progress.clock.at(real) if progress is not None and progress.clock is not None else real

    @property
    def lag(self) -> float | None:
        """Seconds since the materialiser's watermark; None if the store has nothing of these views."""
        return None if self.progress is None else max(0.0, (self.now - self.progress.watermark) / SECOND)

    def have(self, key: Key) -> Chunk | None:
        """A chunk, if it is in memory."""
        chunk = self.chunks.get(key)
        if chunk is not None:
            chunk.used = True
        return chunk

    def read(self, keys: Collection[Key]) -> tuple[Mapping[Key, Chunk], Trouble | None]:
        """The chunks that aren't in memory, if they can be had before the deadline; else none, and why."""
        if self.trouble is not None:  # the thread finds out when this has passed
            return {}, self.trouble
        try:
            deadline = self._deadline + self._store.round_trip + EACH * len(keys)
            return self._pool.submit(self._read, keys).result(timeout=deadline), None
        except TimeoutError:
            return {}, "slow"
        except StoreError as error:
            self._is("down", str(error))
            return {}, "down"

    def _read(self, keys: Collection[Key]) -> dict[Key, Chunk]:
        """Read chunks into memory; raises StoreError."""
        asked = []
        for number, entity, chunk in keys:
            view, span = self._views[number]
            start, stop = (EARLIEST, LATEST) if view.ttl is None else (chunk * span - view.ttl, (chunk + 1) * span - 1)
            asked.append(Span(view.name, entity, start, stop))
        found = {key: Chunk(rows) for key, rows in zip(keys, self._store.read(asked), strict=True)}
        with self._lock:
            for key, made in found.items():
                self._drop(key)
                self.chunks[key] = made
                self.rows += 1 + len(made.rows)
            while self.rows > MOST_ROWS and len(self.chunks) > len(found):
                self._drop(next(iter(self.chunks)))
        return found

    def _drop(self, key: Key) -> None:
        """Forget a chunk; the caller holds the lock."""
        if (chunk := self.chunks.pop(key, None)) is not None:
            self.rows -= 1 + len(chunk.rows)

    def _look(self) -> None:
        """Look at the store's progress; if it has some, read the chunks in use anew."""
        try:
            progress = self._store.progress()
            if progress is None:
                self._is("empty", "nothing of this model's views is in the feature store: is the materialiser running?")
                return
            before, self.progress = self.progress, progress
            self._is(None, "")
            if before is None or before.revision == progress.revision:
                return
            with self._lock:
                chunks = list(self.chunks.items())
                for key, chunk in chunks:
                    if not chunk.used:
                        self._drop(key)
            used = [key for key, chunk in chunks if chunk.used]
            for first in range(0, len(used), BATCH):
                for chunk in self._read(used[first : first + BATCH]).values():
                    chunk.used = False
        except StoreError as error:
            self._is("down", str(error))

    def _is(self, trouble: Trouble | None, why: str) -> None:
        """Note what the trouble is now, and say it once."""
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble is None:
                LOG.info("the feature store answers")
            else:
                LOG.error("features can't be looked up", extra={"fields": {"reason": why}})

    def _follow(self) -> None:
        while not self._stopped.wait(REFRESH):
            try:
                self._look()
                if (lag := self.lag) is not None:
                    self._watch(lag)
            except Exception:  # the thread must live on, whatever it is
                LOG.exception("the feature store's progress can't be read")


def chunk_span(view: View) -> int:
    """Microseconds: the n-th chunk of an entity has what look-ups from n to n + 1 times this need."""
    return view.ttl or DAY
