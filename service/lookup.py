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
from ml.features.views import (
    MICROSECOND,
    MINUTE,
    SECOND,
    START,
    TRANSFORMS,
    Moment,
    Transform,
    Views,
    microseconds,
    spell_key,
)
from ml.values import UnreadableError, moment_of
from service.feature_memory import Chunk, Key, Memory, Trouble, chunk_span

STEP = 5 * MINUTE
"""An example's time is a multiple of it, as times in timetables are."""
TIMES = 4096
"""Times of requests that are remembered: to read one takes longer than to look up a view."""


class Found(NamedTuple):
    """What was looked up for a row."""

    sent: list[str]
    """The features that the request contains."""
    values: dict[str, float | str | bool]
    """Those that were looked up."""
    ages: dict[str, float | None]
    """Seconds from the event timestamp of a looked up value to the time that counts; None if it is always true."""
    trouble: Trouble | None


class _Plan(NamedTuple):
    """What to look up for a view: what is the same for all requests.

    To ask the view for it, features_of included, takes a tenth of the time of a look-up.
    """

    number: int
    """The place of the view."""
    entity: int
    """The place of its keys in Lookup._entities."""
    known: bool
    """Whether its rows are looked up for what was known; else for the event."""
    span: int
    """Of its chunks."""
    ttl: int | None
    features: tuple[str, ...]
    transform: Transform


class _Asked(NamedTuple):
    """What a row needs of the store."""

    sent: list[str]
    unknown: set[str]
    """The features that aren't sent."""
    moment: Moment
    wanted: list[tuple[_Plan, int, Key, Chunk | None]]
    """The views, the times that they are asked for, and the chunks with their rows, as far as they are in memory."""
    late: bool
    """Whether views are left out because the materialiser is late."""


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
        self.views = views
        self.keys = tuple(key for key in dict.fromkeys((*views.keys, views.time)) if key not in features)
        """Fields of a request that name entities, or its time, and are no features."""
        self.fields = (*features, *self.keys)
        """All fields that a request may contain; rows have their values in this order."""
        self.memory = Memory(views, store, deadline=deadline, **options)
        self._features = tuple(features)
        self._zone, self._layout = ZoneInfo(views.timezone), layout
        self._time = self.fields.index(views.time)
        self._times = lru_cache(TIMES, typed=True)(self._read_time)
        self._keys = [self.fields.index(name) for name in views.keys]
        keys = [*dict.fromkeys(view.keys for view in views.views)]
        self._entities = [tuple([views.keys.index(name) for name in each]) for each in keys]
        """For each kind of entity, which of the keys name it."""
        self._plans = [
            _Plan(
                number,
                keys.index(view.keys),
                view.at == "known",
                chunk_span(view),
                view.ttl,
                view.features,
                TRANSFORMS[view.transform],
            )
            for number, view in enumerate(views.views)
        ]

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
        [found] = self.find_all([[*map(row.get, self.fields)]])
        return found

    def find_all(self, rows: Sequence[Sequence[Any]]) -> list[Found]:
        """As `find`, for the rows of a request as their values in the order of `fields`: the store is asked once."""
        asked = [self._asked(row) for row in rows]
        lacking = {key for each in asked for _, _, key, chunk in each.wanted if chunk is None}
        chunks, missed = self.memory.read(lacking) if lacking else ({}, None)
        return [self._found(each, chunks, missed) for each in asked]

    def _asked(self, row: Sequence[Any]) -> _Asked:
        """What a row needs of the store."""
        sent = [name for name, value in zip(self._features, row, strict=False) if value is not None]
        unknown = {name for name, value in zip(self._features, row, strict=False) if value is None}
        progress, moment = self.memory.progress, self._moment(row[self._time])
        if moment is None or progress is None:
            return _Asked(sent, unknown, Moment(0, 0, 0), [], late=False)
        late = moment.known - progress.watermark > self.views.max_lag
        wanted: list[tuple[_Plan, int, Key, Chunk | None]] = []
        if unknown:
            spelled = [_spelled(row[place]) for place in self._keys]
            entities = [tuple([spelled[key] for key in keys]) for keys in self._entities]
            have = self.memory.have
            for plan in self._plans:
                number, entity, known, span, ttl, features, _ = plan
                keys = entities[entity]
                if None in keys or (late and known and ttl is not None) or unknown.isdisjoint(features):
                    continue
                at = moment.known if known else moment.event
                key = (number, keys, 0 if ttl is None else at // span)
                wanted.append((plan, at, key, have(key)))
        return _Asked(sent, unknown, moment, wanted, late)

    def _found(self, asked: _Asked, chunks: Mapping[Key, Chunk], missed: Trouble | None) -> Found:
        """The features of a row; `chunks`: those that weren't in memory; `missed`: why one is missing."""
        sent, unknown, moment, wanted, late = asked
        values: dict[str, float | str | bool] = {}
        ages: dict[str, float | None] = {}
        lacking = False
        for plan, at, key, had in wanted:
            if (chunk := had or chunks.get(key)) is None:
                lacking = True
                continue
            place = bisect_right(chunk.stamps, at) - 1
            if place < 0 or ((ttl := plan.ttl) is not None and at - chunk.stamps[place] > ttl):
                continue
            age = None if ttl is None else (at - chunk.stamps[place]) / SECOND
            # A transform's further results are left out.
            for name, value in zip(plan.features, plan.transform(chunk.rows[place], moment), strict=False):
                if value is not None and name in unknown:
                    values[name], ages[name] = value, age
                    unknown.discard(name)  # a later view may have it, too
        return Found(sent, values, ages, (missed if lacking else None) or ("late" if late else self.memory.trouble))

    def _moment(self, value: Any) -> Moment | None:
        """The times of a row by its event's time; None if that isn't a time."""
        if not isinstance(value, str | int | float) or (times := self._times(value)) is None:
            return None
        event, clock = times
        return Moment(min(event - self.views.horizon, self.memory.now), event, clock)

    def _read_time(self, value: str | float) -> tuple[int, int] | None:
        """The moment of an event, and the clock at its place."""
        try:
            given = moment_of(value, self._layout)
            event = microseconds(given, self._zone)
            local = given.astimezone(self._zone).replace(tzinfo=None) if given.tzinfo else given
            return event, microseconds(local, UTC)
        except (UnreadableError, OverflowError):
            return None


@lru_cache(maxsize=65_536, typed=True)
def _spell(value: Any) -> str | None:
    text = spell_key(value)
    # Half of a pair of surrogates can't be written in UTF-8, so no store has it.
    return text if text and text.encode(errors="ignore").decode() == text else None


def _spelled(value: Any) -> str | None:
    """A key as the store has it; None if it is missing or can't be one."""
    return _spell(value) if isinstance(value, str | int | float) else None
