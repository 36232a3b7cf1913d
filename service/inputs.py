"""Reads the values of a request as the features of the bundle; ml/values.py decides what they mean, as in training."""

import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ml import values
from ml.bundle import BundleError
from ml.schema import Feature, Schema
from ml.values import UnreadableError, time_zone

MAX_TEXT = 10_000
"""Maximum number of characters of a value."""
MAX_MARKS = 30
"""Maximum number of combining marks in a row (UAX #15, Stream-Safe Text): a longer run takes quadratic time."""
MAX_NUMBER = float(np.finfo(np.float32).max)
"""The model computes in float32, in which a larger number would be infinity."""

WarningCode = Literal["out_of_range", "unknown_category", "unknown_field", "missing_value", "empty_row"]


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning about an unusual value; the row still gets a prediction."""

    field: str | None
    """None: the row as a whole."""
    code: WarningCode
    message: str


Reader = Callable[[Any, list[Warned]], Any]
"""Converts a value (not None) to the feature's type, and appends warnings; None if the value is missing.

Raises UnreadableError when the schema refuses the value.
"""


def reader_of(feature: Feature, schema: Schema) -> Reader:
    """The reader of a feature's values."""
    missing = schema.spellings(feature)
    match feature.type:
        case "numeric":
            return _number_reader(feature, missing)
        case "boolean":
            return _truth_reader(missing)
        case "datetime":
            return _time_reader(feature, missing)
        case "categorical":
            return _category_reader(feature, missing)
        case _:
            return _text_reader(missing)


def _number_reader(feature: Feature, missing: frozenset[str]) -> Reader:
    sentinels = {number for text in missing if (number := values.number(text)) is not None}
    # Training may have seen larger numbers: the encoding scales them.
    largest = max(MAX_NUMBER, abs(feature.low or 0), abs(feature.high or 0))
    low, high = _learnt_range(feature)

    def read(value: Any, warned: list[Warned]) -> Any:
        kind = type(value)
        if kind is not float and kind is not int:
            value = _other_number(value, feature, missing)
            if value is None:
                return None
        try:
            number = float(value)
        except OverflowError:
            raise UnreadableError("the number is too large", "not_finite") from None
        if not -largest <= number <= largest:
            raise UnreadableError(
                "must be a finite number; leave the field out when the value is unknown", "not_finite"
            )
        if sentinels and number in sentinels:
            return None
        if feature.minimum is not None and number < feature.minimum:
            raise UnreadableError(f"{number:.15g} is below the minimum {feature.minimum:.15g}", "out_of_bounds")
        if feature.maximum is not None and number > feature.maximum:
            raise UnreadableError(f"{number:.15g} is above the maximum {feature.maximum:.15g}", "out_of_bounds")
        if not low <= number <= high:
            _warn_range(number, feature, warned, f"{number:.15g}")
        return number

    return read


def _other_number(value: Any, feature: Feature, missing: frozenset[str]) -> float | None:
    """The number in a value that isn't a number in JSON: only as the training file itself contained it."""
    if isinstance(value, bool) and "boolean" in feature.forms:
        return float(value)
    if isinstance(value, str):
        _check_length(value)
        if values.is_missing(value, missing):
            return None
        if "text" in feature.forms and (number := values.number(values.clean(value))) is not None:
            return number
    raise UnreadableError(f"must be a number, not {kind_of(value)}")


def _truth_reader(missing: frozenset[str]) -> Reader:
    def read(value: Any, _: list[Warned]) -> Any:
        if value is True or value is False:
            return float(value)
        if isinstance(value, str):
            _check_length(value)
        if isinstance(value, str | int | float):
            if values.is_missing(value, missing):
                return None
            if (truth := values.truth(value)) is not None:
                return truth
            raise UnreadableError(f"must be true or false, not {str(value)[:50]!r}")
        raise UnreadableError(f"must be true or false, not {kind_of(value)}")

    return read


def _time_reader(feature: Feature, missing: frozenset[str]) -> Reader:
    layout, zone, utc = feature.format, feature.timezone, feature.utc
    low, high = _learnt_range(feature)
    numeric = layout is not None and values.is_numeric(layout)
    known = f"such as {feature.example}" + (f", or {layout}" if layout else "")

    def read(value: Any, warned: list[Warned]) -> Any:
        if isinstance(value, str):
            _check_length(value)
            if values.is_missing(value, missing):
                return None
        elif not numeric or isinstance(value, bool) or not isinstance(value, int | float):
            raise UnreadableError(f"must be a time as ISO 8601 text, not {kind_of(value)}")
        try:
            seconds = values.read_time(value, layout, zone, utc=utc)
        except UnreadableError as error:
            if str(error).startswith("must") or error.code != "wrong_type":
                raise
            raise UnreadableError(f"{str(value)[:50]!r} is not an ISO 8601 time, {known}") from None
        if not low <= seconds <= high:
            _warn_range(seconds, feature, warned, str(value)[:50])
        return seconds

    return read


def _category_reader(feature: Feature, missing: frozenset[str]) -> Reader:
    categories = frozenset(feature.categories)
    numeric = "number" in feature.forms or any(values.number(category) is not None for category in categories)
    truths = {text.lower(): text for text in feature.categories if text.lower() in ("true", "false")}

    def read(value: Any, warned: list[Warned]) -> Any:
        if type(value) is str and value in categories:
            return value
        candidates = _spellings(value, truths, numeric=numeric)
        if values.is_missing(candidates[0], missing):
            return None
        for text in candidates:
            if text in categories:
                return text
        if feature.unknown == "refuse":
            raise UnreadableError(f"{candidates[0][:50]!r} is not a known category", "unknown_category")
        message = f"{candidates[0][:50]!r} was not seen in training"
        warned.append(Warned(feature.name, "unknown_category", message))
        return candidates[0]

    return read


def _spellings(value: Any, truths: dict[str, str], *, numeric: bool) -> list[str]:
    """How training may have spelled a value; the first spelling is the usual one.

    `truths`: the categories that are truth values, such as True, by their text in lower case.
    """
    if isinstance(value, str):
        _check_length(value)
        text = values.clean(value)
        return [text, truths[text.lower()]] if text.lower() in truths else [text]
    if isinstance(value, bool):
        if truths:
            text = values.spell(value)
            return [text, truths.get(text, text)]
    elif isinstance(value, int | float) and numeric:
        # 5 and 5.0 are the same number in JSON.
        whole = float(value).is_integer() if isinstance(value, float) or abs(value) < 2**53 else False
        return [values.spell(value), *([f"{int(value)}.0"] if whole else [])]
    raise UnreadableError(f"must be a string, not {kind_of(value)}")


def _text_reader(missing: frozenset[str]) -> Reader:
    def read(value: Any, _: list[Warned]) -> Any:
        if not isinstance(value, str):
            raise UnreadableError(f"must be a string, not {kind_of(value)}")
        _check_length(value)
        text = values.clean(value)
        return text if text and text not in missing else None

    return read


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise UnreadableError(f"must have at most {MAX_TEXT} characters", "too_long")
    if len(text) <= MAX_MARKS or text.isascii():
        return
    run = 0
    for sign in text:
        run = run + 1 if unicodedata.combining(sign) else 0
        if run > MAX_MARKS:
            raise UnreadableError(f"must have at most {MAX_MARKS} combining marks in a row", "too_long")


def _learnt_range(feature: Feature) -> tuple[float, float]:
    """The smallest and the largest value in training; without bounds if training had none."""
    if feature.low is None or feature.high is None:
        return -math.inf, math.inf
    return feature.low, feature.high


def _warn_range(number: float, feature: Feature, warned: list[Warned], shown: str) -> None:
    low, high = _learnt_range(feature)
    if feature.type == "datetime":
        borders = [values.iso(edge) for edge in (low, high)]
    else:
        # Rounded, but not so far that the range would shrink to a point, or the number would be within it.
        for digits in (3, 6, 17):
            borders = [rounded(low, digits), rounded(high, digits)]
            first, last = map(float, borders)
            if not first <= number <= last and (first < last or low == high):
                break
    warned.append(
        Warned(feature.name, "out_of_range", f"{shown} is outside the training range {borders[0]} to {borders[1]}")
    )


def rounded(number: float, digits: int = 3) -> str:
    """A number for people: with this many significant digits, or without decimals if it is larger."""
    return f"{number:.{digits}g}" if abs(number) < 10**digits - 0.5 else f"{number:.0f}"


def kind_of(value: Any) -> str:
    """A value's JSON type, for messages."""
    names = {
        bool: "a boolean",
        str: "a string",
        list: "an array",
        dict: "an object",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def is_lost(value: Any) -> bool:
    """Whether a value is NaN or infinite, which some protocols' clients send for a missing value."""
    return isinstance(value, float) and not math.isfinite(value)


class Input(NamedTuple):
    """How a feature's values are read."""

    name: str
    read: Reader
    required: bool
    unseen: Warned | None
    """The warning for a row without a value, if training never saw this."""
    dtype: type
    blank: float | None
    """Stands for a missing value."""


def input_of(feature: Feature, schema: Schema) -> Input:
    """How the feature's values are read. Raises BundleError when its time zone isn't there."""
    if feature.timezone is not None:
        try:
            time_zone(feature.timezone)
        except ValueError as error:
            raise BundleError(f"feature {feature.name}: {error}: install the package tzdata") from None
    unseen = (
        Warned(feature.name, "missing_value", "has no value, which training never saw") if feature.complete else None
    )
    text = feature.type in ("categorical", "text")
    return Input(
        feature.name,
        reader_of(feature, schema),
        feature.required,
        unseen,
        object if text else np.float64,
        None if text else math.nan,
    )
