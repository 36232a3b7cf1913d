"""Turns rows into predictions: checks them against the bundle's schema and runs its model. Independent of HTTP."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ml.bundle import Bundle, BundleError, load_bundle
from ml.schema import Columns, Feature, Schema
from ml.values import UnreadableError, time_zone
from service.inputs import Reader, Warned, is_lost, reader_of

MAX_PROBLEMS = 100
"""Maximum number of problems listed in an answer; further problems are only counted."""
EMPTY_ROW = Warned(None, "empty_row", "the row has no value for any feature")

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
class Answer:
    """The answer for one row."""

    prediction: str | int | float | bool
    """The label as the training file has it, or the number of a regression."""
    label: str | None
    """The label as text, a key of `probabilities`; None for a regression."""
    probabilities: dict[str, float] | None
    """By class; None for a regression."""
    warnings: tuple[Warned, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers in the order of the rows, with the counts for monitoring."""

    answers: tuple[Answer, ...]
    missing: dict[str, int]
    """Rows without a value, by feature."""


class _Input(NamedTuple):
    """How a feature's values are read."""

    name: str
    read: Reader
    required: bool
    unseen: Warned | None
    """The warning for a row without a value, if training never saw this."""
    dtype: type
    blank: float | None
    """Stands for a missing value."""


class Predictor:
    """A loaded bundle; safe to call from several threads."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._values = bundle.schema.answers()
        self._inputs = [_input_of(feature, bundle.schema) for feature in bundle.schema.features]
        self._names = frozenset(feature.name for feature in bundle.schema.features)
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
        """A row that the model accepts: the first such of the training sample, or the schema's example values.

        Training rows may lack what a request must contain, or be outside the declared bounds.
        """
        for row in self.bundle.parts.reference.sample:
            try:
                self._parse([row], "error")
            except InvalidRowsError:
                continue
            return dict(row)
        return {feature.name: feature.example for feature in self.schema.features}

    def predict(self, rows: Sequence[Mapping[str, Any]], non_finite: NonFinite = "error") -> Answers:
        """An answer for each row; it doesn't depend on the other rows.

        Raises InvalidRowsError naming rows and fields when any row is invalid.
        """
        columns, warnings, missing = self._parse(rows, non_finite)
        # Values near float32's limits can overflow inside the model. The result is NaN, which JSON can't represent.
        with np.errstate(all="ignore"):
            scores = self.bundle.scores(columns)
        lost = np.flatnonzero(~np.isfinite(scores.reshape(len(rows), -1)).all(axis=1))
        if len(lost):
            raise InvalidRowsError(
                [Problem(int(row), None, "no_answer", "the model's result is not a finite number") for row in lost]
            )
        classes = self.schema.classes
        if not classes:
            numbers = scores.tolist()
            return Answers(
                tuple(
                    Answer(number, None, None, tuple(warned)) for number, warned in zip(numbers, warnings, strict=True)
                ),
                missing,
            )
        answers = [
            Answer(self._values[winner], classes[winner], dict(zip(classes, row, strict=True)), tuple(warned))
            for winner, row, warned in zip(self.bundle.winners(scores).tolist(), scores.tolist(), warnings, strict=True)
        ]
        return Answers(tuple(answers), missing)

    def _parse(
        self, rows: Sequence[Mapping[str, Any]], non_finite: NonFinite
    ) -> tuple[Columns, list[list[Warned]], dict[str, int]]:
        """Typed columns, the warnings of each row, and the number of rows without a value by feature."""
        problems: list[Problem] = []
        warnings: list[list[Warned]] = [[] for _ in rows]
        for row, warned in zip(rows, warnings, strict=True):
            if not row.keys() <= self._names:
                unknown = (name for name in row if name not in self._names)
                warned += [
                    Warned(name[:200], "unknown_field", "not a feature of this model; ignored") for name in unknown
                ]
        columns: Columns = {}
        missing: dict[str, int] = {}
        absent = [0] * len(rows)
        """Features without a value, by row."""
        for name, read, required, unseen, kind, blank in self._inputs:
            found = [blank] * len(rows)
            for number, row in enumerate(rows):
                value = row.get(name)
                if value is not None:
                    try:
                        value = None if non_finite == "missing" and is_lost(value) else read(value, warnings[number])
                    except UnreadableError as error:
                        problems.append(Problem(number, name, error.code, str(error)))
                        continue
                    if value is not None:
                        found[number] = value
                        continue
                if required:
                    problems.append(Problem(number, name, "missing", "a value is required"))
                    continue
                absent[number] += 1
                missing[name] = missing.get(name, 0) + 1
                if unseen is not None:
                    warnings[number].append(unseen)
            columns[name] = np.array(found, dtype=kind)
        if problems:
            raise InvalidRowsError(sorted(problems, key=lambda problem: problem.row))
        for number, blanks in enumerate(absent):
            if blanks == len(self._inputs):
                warnings[number].insert(0, EMPTY_ROW)
        return columns, warnings, missing


def _input_of(feature: Feature, schema: Schema) -> _Input:
    if feature.timezone is not None:
        try:
            time_zone(feature.timezone)
        except ValueError as error:
            raise BundleError(f"feature {feature.name}: {error}: install the package tzdata") from None
    unseen = (
        Warned(feature.name, "missing_value", "has no value, which training never saw") if feature.complete else None
    )
    text = feature.type in ("categorical", "text")
    return _Input(
        feature.name,
        reader_of(feature, schema),
        feature.required,
        unseen,
        object if text else np.float64,
        None if text else math.nan,
    )
