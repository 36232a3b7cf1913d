"""Feature views: what is stored by key and time, and how features follow from it.

A view's row says what is known of an entity from its event timestamp on, until the next row of that entity. There is a
new row only when something happens. What changes with every minute, such as how long a flight has been waiting, is
computed from the row and the moment by the view's transform. Training and service call the same transforms.

All times are integers: microseconds since 1970 in UTC, if nothing else is said.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, NamedTuple, Self

from pydantic import model_validator

from ml.schema import Document
from ml.values import spell

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
EARLIEST, LATEST = -(2**62), 2**62
"""Earlier and later than every time, and whole as float64, too."""
START = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

Value = float | str | bool | None
"""A stored value or a feature; None where missing."""


def microseconds(time: datetime, zone: tzinfo) -> int:
    """A time as an integer; one without an offset from UTC is of the zone."""
    return ((time if time.tzinfo else time.replace(tzinfo=zone)) - START) // MICROSECOND


class Moment(NamedTuple):
    """The times that a look-up is about."""

    known: int
    """Only what was known then may be used."""
    event: int
    """The event that is predicted."""
    clock: int
    """The same by the clock at the place of the event, in microseconds since 1970."""


Transform = Callable[[Sequence[Value], Moment], Sequence[Value]]
"""From the values of a row and the moment of the look-up to the view's features."""


def _plain(values: Sequence[Value], _: Moment) -> Sequence[Value]:
    return values


def _mean(values: Sequence[Value], _: Moment) -> Sequence[Value]:
    """`count, total` -> the mean; missing without any."""
    count, total = values
    return (float(total) / float(count),) if count else (None,)  # type: ignore[arg-type]  # both are numbers


def _mean_so_far(values: Sequence[Value], moment: Moment) -> Sequence[Value]:
    """`count, waiting, ended, begun` -> the mean duration so far in minutes, and the share of what hasn't ended.

    `ended`: total minutes of what has ended; `begun`: total of the beginnings of what hasn't, in minutes since 1970.
    """
    count, waiting, ended, begun = (float(value) for value in values)  # type: ignore[arg-type]  # all are numbers
    if not count:
        return None, None
    return (ended + waiting * (moment.known / MINUTE) - begun) / count, waiting / count


TURNAROUND = 45.0
"""Assumed minimum minutes on the ground between two flights of the same aircraft."""


def _previous_flight(values: Sequence[Value], moment: Moment) -> Sequence[Value]:
    """`scheduled, departed, landed, minutes` of an aircraft's previous flight -> its delay so far in minutes, and the
    hours between its earliest return and the event; all times in minutes since 1970, None while they aren't known.

    The earliest return assumes that the return flight takes as long as the outbound flight, with a turnaround at both
    ends. A flight more than a day before the event says nothing about it.
    """
    scheduled, departed, landed, minutes = values
    now, event = moment.known / MINUTE, moment.event / MINUTE
    if event - scheduled > DAY / MINUTE:  # type: ignore[operator]  # times are numbers
        return None, None
    left = max(scheduled, now) if departed is None else departed  # type: ignore[type-var]
    delay = left - scheduled if departed is not None or scheduled <= now else None  # type: ignore[operator]
    there = left + minutes  # type: ignore[operator]
    if departed is not None:
        there = max(there, now) if landed is None else landed
    back = there + minutes + 2 * TURNAROUND  # type: ignore[operator]
    return delay, (event - back) / 60


def _timetable(values: Sequence[Value], moment: Moment) -> Sequence[Value]:
    """`distance, minutes, shift` -> distance, scheduled minutes, and the local hour of arrival; `shift`: minutes from
    the local time of departure to the local time of arrival.
    """
    distance, minutes, shift = values
    return distance, minutes, (moment.clock % DAY // MINUTE + shift) % 1440 / 60  # type: ignore[operator]


def _age(values: Sequence[Value], moment: Moment) -> Sequence[Value]:
    """`year, …` -> whole years from that year to the year of the event, and the other values as they are."""
    year, *others = values
    this = datetime.fromtimestamp(moment.clock // SECOND, UTC).year
    return [None if year is None else this - float(year), *others]


TRANSFORMS: Mapping[str, Transform] = {
    "plain": _plain,
    "mean": _mean,
    "mean_so_far": _mean_so_far,
    "previous_flight": _previous_flight,
    "timetable": _timetable,
    "age": _age,
}


_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].+)?")
_TRUTH = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}


def spell_key(value: object) -> str:
    """The text of a key, the same for all ways to write it: 7.0 is 7, True is true, midnight is the date alone.

    Times with an offset from UTC are written in UTC.
    """
    text = spell(value)
    if _DATE.fullmatch(text):
        try:
            time = datetime.fromisoformat(text)
            if time.tzinfo is not None:
                return time.astimezone(UTC).isoformat()
            return time.date().isoformat() if time.time() == _MIDNIGHT else time.isoformat()
        except (ValueError, OverflowError):
            return text
    return _TRUTH.get(text, text)


_MIDNIGHT = datetime.min.time()


class View(Document):
    """A feature view."""

    name: str
    version: int = 1
    """Counted up when the meaning of its rows or its transform changes: an older store then has nothing for it."""
    keys: tuple[str, ...]
    """The fields of a request that name the entity, in this order; none: there is a single entity."""
    at: Literal["known", "event"] = "known"
    """The time that a row is looked up for: what was known then, or what the timetable says about the event's time."""
    ttl: int | None
    """A row older than this (in microseconds) counts as missing; None: rows stay true."""
    values: tuple[str, ...]
    """What a row contains."""
    transform: str = "plain"
    """A key of TRANSFORMS."""
    features: tuple[str, ...]
    """What the transform makes of a row; its further results are left out."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.transform not in TRANSFORMS:
            raise ValueError(f"{self.name}: there is no transform {self.transform!r}, only {', '.join(TRANSFORMS)}")
        if self.transform == "plain" and self.values != self.features:
            raise ValueError(f"{self.name}: without a transform, the features are the values")
        return self

    def features_of(self, values: Sequence[Value], moment: Moment) -> Sequence[Value]:
        """The features by a row's values at a moment, in the order of `features`."""
        return TRANSFORMS[self.transform](values, moment)[: len(self.features)]

    def asked(self, moment: Moment) -> int:
        """The time that a row is looked up for."""
        return moment.known if self.at == "known" else moment.event


class Views(Document):
    """The views that a model's features come from, and how a request names their entities and times."""

    time: str
    """The feature with the time of the event."""
    timezone: str = "UTC"
    """The zone of times without an offset."""
    horizon: int = 0
    """Microseconds before the event at which a prediction is made."""
    max_lag: int
    """If the materialiser hasn't caught up with the moment within this time (microseconds), views `at` known count as
    missing: flights that left since would still be waiting."""
    views: tuple[View, ...]
    """If several have a feature, the first that has a value gives it."""

    @property
    def fingerprint(self) -> str:
        """Names the meaning of all rows: a store of other views has nothing for these."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @property
    def keys(self) -> tuple[str, ...]:
        """Fields of a request that name entities."""
        return tuple(dict.fromkeys(key for view in self.views for key in view.keys))
