"""Reads usual values quickly; all other values are for the careful readers (inputs.py).

A value is usual if its careful reader takes it as it is, without a warning: a number or a time within the training
range, a category that training knew, a missing value where training had some.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml import values
from ml.schema import Feature, Schema
from ml.values import UnreadableError
from service.inputs import MAX_NUMBER, Reader, Warned, is_lost

Column = Sequence[Any] | NDArray[np.generic]
"""The values of a feature by row, as a request contains them; None where missing."""

_START = datetime(1970, 1, 1)
_START_UTC = _START.replace(tzinfo=UTC)
_PLAIN = frozenset({float, int, type(None)})
_TEXTS = frozenset({str, type(None)})


class Unusual(Exception):  # noqa: N818 - not an error: the careful readers decide
    """A value that its careful reader must see."""


class Times(NamedTuple):
    """The usual times of a feature: in ISO 8601, from low to high in seconds since 1970."""

    low: float
    high: float
    missing: frozenset[str]
    """Texts that mean that the value is missing."""
    start: datetime
    """1970-01-01, in UTC if the times have an offset from UTC."""


@dataclass(frozen=True, slots=True)
class Usual:
    """The usual values of a feature."""

    name: str
    read: Callable[[Any], Any]
    """A value (not None) as the careful reader reads it; raises Unusual."""
    optional: bool
    """Whether a missing value is usual."""
    low: float
    high: float
    """Numbers from low to high are usual; low is above high if the feature isn't numeric."""
    sentinels: frozenset[float]
    """Numbers between them that mean that the value is missing."""
    codes: Mapping[str | None, int] | None
    """Categories by place, from 1, and 0 for a missing value; None if the feature isn't categorical."""
    times: Times | None
    """None if the feature has no times, or has them in another format."""
    outside: Reader | None
    """Reads a time outside the training range, with its warning; None if the feature isn't a time. Requests are about
    what comes after training, so that this is no rare value."""
    dtype: type
    """Of the column: of codes, texts or numbers."""


class Read(NamedTuple):
    """A column of n rows."""

    array: NDArray[Any]
    """float64 with NaN where missing, codes of categories, or texts with None where missing."""
    blank: NDArray[np.bool_]
    """Where the value is missing."""
    odd: NDArray[np.bool_]
    """Where it is unusual; the array has any value there."""


def usual_of(feature: Feature, schema: Schema, read: Reader) -> Usual:
    low, high = math.inf, -math.inf
    sentinels: frozenset[float] = frozenset()
    codes: dict[str | None, int] | None = None
    times: Times | None = None
    take: Callable[[Any], Any] = partial(_carefully, read)
    spellings = schema.spellings(feature)
    if feature.type == "categorical":
        codes = {text: code for code, text in enumerate((None, *feature.categories))}
        take = partial(_category, codes, read)
    elif feature.low is not None and feature.high is not None:
        if feature.type == "numeric":
            largest = max(MAX_NUMBER, abs(feature.low), abs(feature.high))
            low = max(feature.low, -largest, -math.inf if feature.minimum is None else feature.minimum)
            high = min(feature.high, largest, math.inf if feature.maximum is None else feature.maximum)
            found = (values.number(text) for text in spellings)
            sentinels = frozenset(number for number in found if number is not None and low <= number <= high)
        elif feature.type == "datetime" and feature.format is None and feature.timezone is None:
            times = Times(feature.low, feature.high, spellings, _START_UTC if feature.utc else _START)
            take = partial(_time, times)
    dtype = {"categorical": np.int64, "text": object}.get(feature.type, np.float64)
    optional = not feature.required and not feature.complete
    outside = read if feature.type == "datetime" else None
    return Usual(feature.name, take, optional, low, high, sentinels, codes, times, outside, dtype)


def _carefully(read: Reader, value: Any) -> Any:
    warned: list[Warned] = []
    try:
        found = read(value, warned)
    except UnreadableError:
        raise Unusual from None
    if warned:
        raise Unusual
    return found


def _category(codes: Mapping[str | None, int], read: Reader, value: Any) -> Any:
    return value if type(value) is str and value in codes else _carefully(read, value)


def _time(times: Times, text: Any) -> float:
    """Seconds since 1970 of a usual time."""
    # Digits alone are no time (values.read_time), so the fifth character is checked.
    if type(text) is not str or not 16 <= len(text) <= 32 or text[4] != "-" or text in times.missing:
        raise Unusual
    try:
        # The subtraction fails if the one has an offset from UTC and the other hasn't.
        seconds = (datetime.fromisoformat(text) - times.start).total_seconds()
    except (TypeError, ValueError):
        raise Unusual from None
    if not times.low <= seconds <= times.high or not text.isascii():
        raise Unusual
    return seconds


def read_column(usual: Usual, column: Column, *, lost_is_missing: bool) -> Read:
    """The column of a feature; `lost_is_missing`: NaN and infinity mean that the value is missing, or are unusual."""
    if usual.low <= usual.high and (numbers := _numbers(column)) is not None:
        blank = np.isnan(numbers)
        if lost_is_missing:
            blank |= np.isinf(numbers)
            numbers = np.where(blank, np.nan, numbers)
        elif np.count_nonzero(blank) != (0 if isinstance(column, np.ndarray) else column.count(None)):
            return _read_each(usual, column, lost_is_missing=lost_is_missing)
        odd = ~((numbers >= usual.low) & (numbers <= usual.high) | blank)
        if usual.sentinels:
            odd |= np.isin(numbers, [*usual.sentinels])
        return Read(numbers, blank, odd)
    if usual.codes is not None and not isinstance(column, np.ndarray) and _TEXTS.issuperset(map(type, column)):
        codes = np.array([usual.codes.get(value, -1) for value in column])
        return Read(np.maximum(codes, 0), codes == 0, codes < 0)
    if usual.times is not None and not isinstance(column, np.ndarray):
        none = np.zeros(len(column), dtype=np.bool_)
        with suppress(Unusual):
            return Read(np.array([_time(usual.times, text) for text in column]), none, none)
    return _read_each(usual, column, lost_is_missing=lost_is_missing)


def _numbers(column: Column) -> NDArray[np.float64] | None:
    """The column as numbers, NaN where missing; None if it contains anything else."""
    if isinstance(column, np.ndarray):
        return column.astype(np.float64) if column.dtype.kind in "fiu" else None
    if not _PLAIN.issuperset(map(type, column)):
        return None
    try:
        return np.array(column, dtype=np.float64)
    except OverflowError:  # an integer of hundreds of digits
        return None


def _read_each(usual: Usual, column: Column, *, lost_is_missing: bool) -> Read:
    """As `read_column`, value by value."""
    found: list[Any] = [None] * len(column)
    odd = np.zeros(len(column), dtype=np.bool_)
    for row, value in enumerate(column.tolist() if isinstance(column, np.ndarray) else column):
        if value is not None and not (lost_is_missing and is_lost(value)):
            try:
                found[row] = usual.read(value)
            except Unusual:
                odd[row] = True
    blank = np.array([value is None for value in found]) & ~odd
    if usual.codes is not None:
        found = [usual.codes[text] for text in found]
    return Read(np.array(found, dtype=usual.dtype), blank, odd)
