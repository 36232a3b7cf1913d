"""Looks up what a request doesn't contain: features of its entities, from the online store, as of the time that counts.

What the caller sent wins. Rows are looked up for the moment at which the model expects a prediction (the horizon before
the event), but never later than now, so that no answer knows more than training did.

Rows that were read once stay in memory; a thread reads those in use anew when the materialiser has written. A request
waits for other rows at most DEADLINE and the store's round trip: what hasn't come by then is missing in its answer, and
in memory for the next.
"""

import logging
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from ml.features.store import OnlineStore, Progress, Row, Span, StoreError
from ml.features.views import DAY, MINUTE, SECOND, Moment, Value, View, Views
from ml.values import clean, spell

LOG = logging.getLogger("service")
DEADLINE = 0.005
"""Seconds that a request waits for the store, besides its `round_trip`."""
REFRESH = 0.5
"""Seconds between two looks at the store's progress."""
MOST_CHUNKS = 50_000
"""Chunks in memory at most: callers can invent any number of entities."""
STEP = 5 * MINUTE
"""An example's time is a multiple of it, as times in timetables are."""
BATCH = 500
"""Chunks that the thread reads at a time."""
_START, _START_UTC, _MICROSECOND = datetime(1970, 1, 1), datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

Trouble = Literal["slow", "down", "empty", "late"]
"""Why values of the store are missing: it didn't answer in time, it can't be used, it has nothing of these views, or
its materialiser is late."""


class Found(NamedTuple):
    """What was looked up for a row."""

    sent: list[str]
    """The features that the request contains."""
    values: dict[str, float | str | bool]
    """Those that were looked up."""
    ages: dict[str, float | None]
    """Seconds from the event timestamp of a looked up value to the time that counts; None if it is always true."""
    trouble: Trouble | None


class _Chunk:
    """An entity's rows in a span of time."""

    __slots__ = ("rows", "stamps", "used")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.stamps = [row.timestamp for row in rows]
        self.rows = [row.values for row in rows]
        self.used = True


_Key = tuple[int, tuple[Value, ...], int]
"""The place of a view, the entity's keys, and the number of the chunk: look-ups for its times find their rows in it."""


class Lookup:
    """Finds features in an online store; safe to call from several threads. Make it in the process that answers."""

    def __init__(
        self,
        views: Views,
        features: Sequence[str],
        store: OnlineStore,
        *,
        watch: Callable[[float], None] = lambda _: None,
        real: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`features`: those of the model; `watch`: is told the materialiser's lag in seconds, again and again; `real`:
        the wall clock, in microseconds since 1970.
        """
        self.views = views
        self.keys = tuple(key for key in views.keys if key not in features)
        """Fields of a request that name entities and are no features."""
        self._features = tuple(features)
        self._store = store
        self._real, self._watch = real, watch
        self._zone = ZoneInfo(views.timezone)
        self._spans = [view.ttl or DAY for view in views.views]
        self._chunks: dict[_Key, _Chunk] = {}
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="features")
        self._progress: Progress | None = None
        self._trouble: Trouble | None = "empty"
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
        real, progress = self._real(), self._progress
        return progress.clock.at(real) if progress is not None and progress.clock is not None else real

    @property
    def lag(self) -> float | None:
        """Seconds since the materialiser's watermark; None if the store has nothing of these views."""
        return None if self._progress is None else max(0.0, (self.now - self._progress.watermark) / SECOND)

    def soon(self) -> datetime | None:
        """The time of an event that can be predicted with what is known now, in the views' zone; None if the store has
        nothing. If the materialiser is late, with what it wrote last.
        """
        if self._progress is None:
            return None
        behind = self.now - self._progress.watermark > self.views.max_lag
        known = self._progress.watermark if behind else self.now
        event = _START_UTC + ((known + self.views.horizon) // STEP + 1) * STEP * _MICROSECOND
        return event.astimezone(self._zone)

    def find(self, row: Mapping[str, Any]) -> Found:
        """The features that the row doesn't contain, as far as the store has them."""
        sent = [name for name in self._features if row.get(name) is not None]
        moment = self._moment(row.get(self.views.time))
        progress, trouble = self._progress, self._trouble
        if moment is None or progress is None:
            return Found(sent, {}, {}, trouble)
        late = moment.known - progress.watermark > self.views.max_lag
        wanted: list[tuple[View, int, _Key]] = []
        for number, view in enumerate(self.views.views):
            if late and view.at == "known" and view.ttl is not None:
                trouble = trouble or "late"
                continue
            keys = tuple([_spelled(row.get(name)) for name in view.keys])
            if None not in keys:
                asked = moment.known if view.at == "known" else moment.event
                part = 0 if view.ttl is None else asked // self._spans[number]
                wanted.append((view, asked, (number, keys, part)))
        chunks, missed = self._take([key for _, _, key in wanted])
        values: dict[str, float | str | bool] = {}
        ages: dict[str, float | None] = {}
        for view, asked, key in wanted:
            if (chunk := chunks.get(key)) is None:
                continue
            place = bisect_right(chunk.stamps, asked) - 1
            if place < 0 or (view.ttl is not None and asked - chunk.stamps[place] > view.ttl):
                continue
            age = None if view.ttl is None else (asked - chunk.stamps[place]) / SECOND
            for name, value in zip(view.features, view.features_of(chunk.rows[place], moment), strict=True):
                if value is not None and name not in values and row.get(name) is None:
                    values[name], ages[name] = value, age
        return Found(sent, values, ages, missed or trouble)

    def _moment(self, text: Any) -> Moment | None:
        """The times of a row by the text of its event's time; None if that isn't a time."""
        try:
            given = datetime.fromisoformat(text)
            if given.tzinfo is None:
                given = given.replace(tzinfo=self._zone)
            event = (given - _START_UTC) // _MICROSECOND
            clock = (given.astimezone(self._zone).replace(tzinfo=None) - _START) // _MICROSECOND
        except (TypeError, ValueError, OverflowError):
            return None
        return Moment(min(event - self.views.horizon, self.now), event, clock)

    def _take(self, keys: Sequence[_Key]) -> tuple[dict[_Key, _Chunk], Trouble | None]:
        """The chunks that can be had before the deadline, and why some are missing."""
        found: dict[_Key, _Chunk] = {}
        lacking = []
        for key in keys:
            chunk = self._chunks.get(key)
            if chunk is None:
                lacking.append(key)
            else:
                chunk.used = True
                found[key] = chunk
        if not lacking:
            return found, None
        if self._trouble is not None:  # the thread finds out when this has passed
            return found, self._trouble
        try:
            return found | self._pool.submit(self._read, lacking).result(
                timeout=DEADLINE + self._store.round_trip
            ), None
        except TimeoutError:
            return found, "slow"
        except StoreError as error:
            self._is("down", str(error))
            return found, "down"

    def _read(self, keys: Sequence[_Key]) -> dict[_Key, _Chunk]:
        """Read chunks into memory; raises StoreError."""
        asked = []
        for number, entity, chunk in keys:
            view, span = self.views.views[number], self._spans[number]
            start, stop = (0, 0) if view.ttl is None else (chunk * span - view.ttl, (chunk + 1) * span - 1)
            asked.append(Span(view.name, entity, start, stop))
        found = {key: _Chunk(rows) for key, rows in zip(keys, self._store.read(asked), strict=True)}
        self._chunks |= found
        while len(self._chunks) > MOST_CHUNKS:
            with suppress(StopIteration, RuntimeError):  # another thread does the same
                self._chunks.pop(next(iter(self._chunks)), None)
        return found

    def _look(self) -> None:
        """Look at the store's progress; if it has some, read the chunks in use anew."""
        try:
            progress = self._store.progress()
            if progress is None:
                self._is("empty", "nothing of this model's views is in the feature store: is the materialiser running?")
                return
            before, self._progress = self._progress, progress
            self._is(None, "")
            if before is None or before.revision == progress.revision:
                return
            chunks = list(self._chunks.items())
            used = [key for key, chunk in chunks if chunk.used]
            for key, chunk in chunks:
                if not chunk.used:
                    self._chunks.pop(key, None)
            for first in range(0, len(used), BATCH):
                for chunk in self._read(used[first : first + BATCH]).values():
                    chunk.used = False
        except StoreError as error:
            self._is("down", str(error))

    def _is(self, trouble: Trouble | None, why: str) -> None:
        """Note what the trouble is now, and say it once."""
        if trouble != self._trouble:
            self._trouble = trouble
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


@lru_cache(maxsize=65_536, typed=True)
def _spell(value: Any) -> str | None:
    text = clean(value) if isinstance(value, str) else spell(value)
    # Half of a pair of surrogates can't be written in UTF-8, so no store has it.
    return text if text and text.encode(errors="ignore").decode() == text else None


def _spelled(value: Any) -> str | None:
    """A key as the store has it; None if it is missing or can't be one."""
    return _spell(value) if isinstance(value, str | int | float) else None
