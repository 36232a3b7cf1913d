"""Turns rows into predictions: checks them against the bundle's schema and runs its model. Independent of HTTP."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml.bundle import Bundle, load_bundle
from ml.schema import Columns, Feature, Schema

MAX_PROBLEMS = 100
"""Maximum number of problems listed in an answer; further problems are only counted."""
MAX_TEXT = 10_000
"""Maximum number of characters of a categorical or text value."""
MAX_NUMBER = float(np.finfo(np.float32).max)
"""The model computes in float32, in which a larger number would be infinity."""

NonFinite = Literal["error", "missing"]
"""The meaning of NaN and infinity in a request: an error, or missing (in protocols whose clients send bare NaN)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a value can't be used."""

    row: int
    """Position in the request, from 0."""
    field: str | None
    code: str
    message: str


class InvalidRowsError(ValueError):
    """Rows that the schema refuses."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} value{'s' if len(problems) != 1 else ''} can't be used")
        self.problems = tuple(problems[:MAX_PROBLEMS])
        self.total = len(problems)
        self.reasons = Counter(code for _, code in {(problem.row, problem.code) for problem in problems})
        """Rows by reason."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning about an unusual value; the row still gets a prediction."""

    field: str
    code: Literal["out_of_range", "unknown_category", "unknown_field"]
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one row."""

    prediction: str | float
    probabilities: dict[str, float] | None
    """By class; None for a regression."""
    warnings: tuple[Warned, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers in the order of the rows, with the counts for monitoring."""

    answers: tuple[Answer, ...]
    missing: dict[str, int]
    """Rows without a value, by feature."""


class Predictor:
    """A loaded bundle; safe to call from several threads."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._features = {feature.name: feature for feature in bundle.schema.features}
        self._categories = {
            feature.name: frozenset(feature.categories)
            for feature in bundle.schema.features
            if feature.type == "categorical"
        }
        # Predict once, so that a model that doesn't work fails at start and not at the first request.
        self.predict([self.example()])

    @classmethod
    def load(cls, path: Path) -> "Predictor":
        """The predictor of the bundle at `path`.

        Raises BundleError when it is missing or damaged.
        """
        return cls(load_bundle(path))

    @property
    def schema(self) -> Schema:
        return self.bundle.schema

    def example(self) -> dict[str, Any]:
        """A row that the model accepts: the first of the training sample, or the schema's example values."""
        sample = self.bundle.parts.reference.sample
        if sample:
            return dict(sample[0])
        return {feature.name: feature.example for feature in self.schema.features}

    def predict(self, rows: Sequence[Mapping[str, Any]], non_finite: NonFinite = "error") -> Answers:
        """An answer for each row; it doesn't depend on the other rows.

        Raises InvalidRowsError naming rows and fields when any row is invalid.
        """
        columns, warnings = self._parse(rows, non_finite)
        # Values near float32's limits can overflow inside the model. The result is NaN, which JSON can't represent.
        with np.errstate(all="ignore"):
            scores = self.bundle.scores(columns)
        lost = np.flatnonzero(~np.isfinite(scores.reshape(len(rows), -1)).all(axis=1))
        if len(lost):
            raise InvalidRowsError(
                [Problem(int(row), None, "no_answer", "the model's result is not a finite number") for row in lost]
            )
        labels = self.bundle.decide(scores)
        classes = self.schema.classes
        answers = []
        for row in range(len(rows)):
            if classes:
                probabilities = {label: float(p) for label, p in zip(classes, scores[row], strict=True)}
                answers.append(Answer(str(labels[row]), probabilities, tuple(warnings[row])))
            else:
                answers.append(Answer(float(labels[row]), None, tuple(warnings[row])))
        missing = {name: count for name, values in columns.items() if (count := _missing(values))}
        return Answers(tuple(answers), missing)

    def _parse(self, rows: Sequence[Mapping[str, Any]], non_finite: NonFinite) -> tuple[Columns, list[list[Warned]]]:
        problems: list[Problem] = []
        warnings: list[list[Warned]] = [[] for _ in rows]
        values: dict[str, list[Any]] = {name: [None] * len(rows) for name in self._features}
        for number, row in enumerate(rows):
            for name in row:
                if name not in self._features:
                    warnings[number].append(Warned(name[:200], "unknown_field", "not a feature of this model; ignored"))
            for name, feature in self._features.items():
                try:
                    values[name][number] = self._value(row.get(name), feature, non_finite, warnings[number])
                except _RefusedError as refused:
                    problems.append(Problem(number, name, refused.code, refused.message))
        if problems:
            raise InvalidRowsError(problems)
        columns: Columns = {
            name: np.array(values[name], dtype=object)
            if feature.type in ("categorical", "text")
            else np.array([math.nan if value is None else value for value in values[name]], dtype=np.float64)
            for name, feature in self._features.items()
        }
        return columns, warnings

    def _value(self, value: Any, feature: Feature, non_finite: NonFinite, warnings: list[Warned]) -> Any:
        """The value converted to the schema's type; None if it is missing."""
        if isinstance(value, float) and not math.isfinite(value) and non_finite == "missing":
            value = None
        if value is None:
            if feature.required:
                raise _RefusedError("missing", "a value is required")
            return None
        match feature.type:
            case "numeric":
                return _number(value, feature, warnings)
            case "boolean":
                if not isinstance(value, bool):
                    raise _RefusedError("wrong_type", f"must be true or false, not {_kind(value)}")
                return float(value)
            case "datetime":
                return _moment(value, feature, warnings)
            case _:
                if not isinstance(value, str):
                    raise _RefusedError("wrong_type", f"must be a string, not {_kind(value)}")
                if len(value) > MAX_TEXT:
                    raise _RefusedError("too_long", f"must have at most {MAX_TEXT} characters")
                if feature.type == "categorical" and value not in self._categories[feature.name]:
                    if feature.unknown == "refuse":
                        raise _RefusedError("unknown_category", f"{value[:50]!r} is not a known category")
                    warnings.append(
                        Warned(feature.name, "unknown_category", f"{value[:50]!r} was not seen in training")
                    )
                return value


class _RefusedError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _number(value: Any, feature: Feature, warnings: list[Warned]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RefusedError("wrong_type", f"must be a number, not {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise _RefusedError("not_finite", "the number is too large") from None
    if not math.isfinite(number) or abs(number) > MAX_NUMBER:
        raise _RefusedError("not_finite", "must be a finite number; leave the field out when the value is unknown")
    if feature.minimum is not None and number < feature.minimum:
        raise _RefusedError("out_of_bounds", f"{number:g} is below the minimum {feature.minimum:g}")
    if feature.maximum is not None and number > feature.maximum:
        raise _RefusedError("out_of_bounds", f"{number:g} is above the maximum {feature.maximum:g}")
    _warn_range(number, feature, warnings, f"{number:g}")
    return number


def _moment(value: Any, feature: Feature, warnings: list[Warned]) -> float:
    if not isinstance(value, str):
        raise _RefusedError("wrong_type", f"must be a time as ISO 8601 text, not {_kind(value)}")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise _RefusedError(
            "wrong_type", f"{value[:50]!r} is not an ISO 8601 time, such as {feature.example}"
        ) from None
    if moment.tzinfo is not None and not feature.utc:
        raise _RefusedError("wrong_type", "must be a local time without offset")
    try:
        wall = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise _RefusedError("out_of_bounds", f"{value[:50]!r} is outside the range of UTC times") from None
    seconds = (wall - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    _warn_range(seconds, feature, warnings, value[:50])
    return seconds


def _warn_range(number: float, feature: Feature, warnings: list[Warned], shown: str) -> None:
    if feature.low is not None and feature.high is not None and not feature.low <= number <= feature.high:
        if feature.type == "datetime":
            borders = [
                datetime.fromtimestamp(edge, UTC).replace(tzinfo=None).isoformat()
                for edge in (feature.low, feature.high)
            ]
        else:
            # Rounded, but not so far that the number would be within the range that the message names.
            for digits in (3, 6, 17):
                borders = [rounded(feature.low, digits), rounded(feature.high, digits)]
                if not float(borders[0]) <= number <= float(borders[1]):
                    break
        warnings.append(
            Warned(feature.name, "out_of_range", f"{shown} is outside the training range {borders[0]} to {borders[1]}")
        )


def rounded(number: float, digits: int = 3) -> str:
    """A number for people: with this many significant digits, or without decimals if it is larger."""
    return f"{number:.{digits}g}" if abs(number) < 10**digits - 0.5 else f"{number:.0f}"


def _kind(value: Any) -> str:
    names = {
        bool: "a boolean",
        str: "a string",
        list: "an array",
        dict: "an object",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)


def _missing(values: NDArray[np.generic]) -> int:
    if values.dtype == object:
        return sum(value is None for value in values)
    return int(np.isnan(values.astype(np.float64)).sum())
