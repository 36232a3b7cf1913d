"""Looks up what a request doesn't contain: features of its entities, from the online store, as of the time that counts.

What the caller sent wins. Rows are looked up for the moment at which the model expects a prediction (the horizon before
the event), but never later than now, so that no answer knows more than training did.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from ml.features.store import OnlineStore
from ml.features.views import MICROSECOND, MINUTE, SECOND, START, Moment, View, Views, microseconds, spell_key
from ml.values import UnreadableError, moment_of
from service.feature_memory import Chunk, Key, Memory, Trouble, chunk_span

STEP = 5 * MINUTE
"""An example's time is a multiple of it, as times in timetables are."""


class Found(NamedTuple):
    """What was looked up for a row."""

    sent: list[str]
    """The features that the request contains."""
    values: dict[str, float | str | bool]
    """Those that were looked up."""
    ages: dict[str, float | None]
    """Seconds from the event timestamp of a looked up value to the time that counts; None if it is always true."""
    trouble: Trouble | None


class _Asked(NamedTuple):
    """What a row needs of the store."""

    moment: Moment
    wanted: list[tuple[View, int, Key]]
    """The views, the times that they are asked for, and the chunks with their rows."""
    late: bool
    """Whether views are left out because the materialiser is late."""


_NOTHING = _Asked(Moment(0, 0, 0), [], late=False)


class Lookup:
    """Finds features in an online store; safe to call from several threads. Make it in the process that answers."""

    def __init__(
        self,
        views: Views,
        features: Sequence[str],
        store: OnlineStore,
        *,
        deadline: float,
        layout: str | None = None,
        **options: Any,
    ) -> None:
        """`features`: those of the model; `layout`: how requests may write the time, besides ISO 8601; `deadline` and
        `options`: those of Memory.
        """
        self.views, self._key_fields = views, views.keys
        self.keys = tuple(key for key in dict.fromkeys((*self._key_fields, views.time)) if key not in features)
        """Fields of a request that name entities, or its time, and are no features."""
        self.memory = Memory(views, store, deadline=deadline, **options)
        self._features, self._known = tuple(features), frozenset(features)
        self._zone, self._layout = ZoneInfo(views.timezone), layout
        self._numbered = [(number, view, chunk_span(view)) for number, view in enumerate(views.views)]

    def soon(self) -> datetime | None:
        """The time of an event that can be predicted with what is known now, in the views' zone; None if the store has
        nothing. If the materialiser is late, with what it wrote last.
        """
        if self.memory.progress is None:
            return None
        behind = self.memory.now - self.memory.progress.watermark > self.views.max_lag
        known = self.memory.progress.watermark if behind else self.memory.now
        event = START + ((known + self.views.horizon) // STEP + 1) * STEP * MICROSECOND
        return event.astimezone(self._zone)

    def find(self, row: Mapping[str, Any]) -> Found:
        """The features that the row doesn't contain, as far as the store has them."""
        [found] = self.find_all([row])
        return found

    def find_all(self, rows: Sequence[Mapping[str, Any]]) -> list[Found]:
        """As `find`, for the rows of a request: the store is asked once."""
        asked = [self._asked(row) for row in rows]
        chunks, missed = self.memory.take({key for each in asked for _, _, key in each.wanted})
        return [self._found(row, each, chunks, missed) for row, each in zip(rows, asked, strict=True)]

    def _asked(self, row: Mapping[str, Any]) -> _Asked:
        """What a row needs of the store."""
        progress, moment = self.memory.progress, self._moment(row.get(self.views.time))
        if moment is None or progress is None:
            return _NOTHING
        late = moment.known - progress.watermark > self.views.max_lag
        spelled = {name: _spelled(row.get(name)) for name in self._key_fields}
        wanted: list[tuple[View, int, Key]] = []
        for number, view, span in self._numbered:
            known = view.at == "known"
            if late and known and view.ttl is not None:
                continue
            keys = tuple([spelled[name] for name in view.keys])
            if None not in keys:
                asked = moment.known if known else moment.event
                wanted.append((view, asked, (number, keys, 0 if view.ttl is None else asked // span)))
        return _Asked(moment, wanted, late)

    def _found(
        self, row: Mapping[str, Any], asked: _Asked, chunks: Mapping[Key, Chunk], missed: Trouble | None
    ) -> Found:
        """The features that the chunks have for a row; `missed`: why a chunk is missing, if one is."""
        sent = [name for name in self._features if row.get(name) is not None]
        unknown = {*self._known}.difference(sent)
        values: dict[str, float | str | bool] = {}
        ages: dict[str, float | None] = {}
        lacking = False
        for view, at, key in asked.wanted:
            if (chunk := chunks.get(key)) is None:
                lacking = True
                continue
            place = bisect_right(chunk.stamps, at) - 1
            if place < 0 or ((ttl := view.ttl) is not None and at - chunk.stamps[place] > ttl):
                continue
            age = None if ttl is None else (at - chunk.stamps[place]) / SECOND
            for name, value in zip(view.features, view.features_of(chunk.rows[place], asked.moment), strict=True):
                if value is not None and name in unknown:
                    values[name], ages[name] = value, age
                    unknown.discard(name)  # a later view may have it, too
        return Found(
            sent, values, ages, (missed if lacking else None) or ("late" if asked.late else self.memory.trouble)
        )

    def _moment(self, value: Any) -> Moment | None:
        """The times of a row by its event's time; None if that isn't a time."""
        try:
            given = moment_of(value, self._layout)
            event = microseconds(given, self._zone)
            local = given.astimezone(self._zone).replace(tzinfo=None) if given.tzinfo else given
            clock = microseconds(local, UTC)
        except (UnreadableError, OverflowError):
            return None
        return Moment(min(event - self.views.horizon, self.memory.now), event, clock)


@lru_cache(maxsize=65_536, typed=True)
def _spell(value: Any) -> str | None:
    text = spell_key(value)
    # Half of a pair of surrogates can't be written in UTF-8, so no store has it.
    return text if text and text.encode(errors="ignore").decode() == text else None


def _spelled(value: Any) -> str | None:
    """A key as the store has it; None if it is missing or can't be one."""
    return _spell(value) if isinstance(value, str | int | float) else None
