"""Turns rows into predictions: checks them against the bundle's schema and runs its model. Independent of HTTP."""

import ctypes
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml.bundle import Bundle, load_bundle
from ml.schema import Columns, Schema
from ml.values import UnreadableError
from service.inputs import Warned, input_of, is_lost
from service.lookup import Found
from service.matrix import RowEncoder
from service.usual import Column

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
        self.every = tuple(problems)
        self.problems = self.every[:MAX_PROBLEMS]
        """The first ones, which an answer lists."""
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

    values: tuple[str | int | float | bool, ...]
    """The classes as an answer contains them; none for a regression."""
    classes: tuple[str, ...]
    """The same as text."""
    scores: list[Any]
    """A list of probabilities by class for each row, or a number for each row of a regression."""
    winners: list[int]
    """The place of each row's class; empty for a regression."""
    warnings: dict[int, tuple[Warned, ...]]
    """By row; rows without warnings are left out."""
    missing: dict[str, int]
    """Rows without a value, by feature."""
    found: Sequence[Found] | None = None
    """What was looked up for each row; None without a feature store."""

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def answers(self) -> tuple[Answer, ...]:
        """An object for each row."""
        warned = [self.warnings.get(row, ()) for row in range(len(self))]
        if not self.classes:
            return tuple(Answer(number, None, None, odd) for number, odd in zip(self.scores, warned, strict=True))
        return tuple(
            Answer(self.values[winner], self.classes[winner], dict(zip(self.classes, row, strict=True)), odd)
            for winner, row, odd in zip(self.winners, self.scores, warned, strict=True)
        )


class Predictor:
    """A loaded bundle; safe to call from several threads."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.names = tuple(feature.name for feature in bundle.schema.features)
        self.inputs = bundle.schema
        """What a request may contain: the features, and after them what else a subclass knows."""
        self._values = bundle.schema.answers()
        self._inputs = [input_of(feature, bundle.schema) for feature in bundle.schema.features]
        self._known = frozenset(self.names)
        readers = [entry.read for entry in self._inputs]
        self._encoder = RowEncoder(bundle.schema, bundle.parts.encoding, readers)
        # Predict once, so that a model that doesn't work fails at start and not at the first request.
        self.predict([self.example()])

    @classmethod
    def load(cls, path: Path) -> "Predictor":
        """The predictor of the bundle at `path`.

        Raises BundleError when it is missing or damaged.
        """
        return cls.of(load_bundle(path))

    @classmethod
    def of(cls, bundle: Bundle) -> "Predictor":
        """The predictor of a bundle that has just been loaded."""
        loaded = cls(bundle)
        # The C library keeps the 10 MB that were needed only to read the model; glibc has a call that returns them.
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
            trim(0)
        return loaded

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
        strange = [place for place, row in enumerate(rows) if not row.keys() <= self._known]
        if len(rows) == 1 and not strange:
            return self._predict_row([*map(rows[0].get, self.names)], non_finite)
        columns = [[row.get(name) for row in rows] for name in self.names]
        return self._predict(columns, rows, strange, non_finite)

    def predict_row(self, row: Sequence[Any], non_finite: NonFinite = "error") -> Answers:
        """As `predict`, for a single row given as its values in the order of `inputs`; None where missing."""
        return self._predict_row(row, non_finite)

    def _predict_row(self, row: Sequence[Any], non_finite: NonFinite) -> Answers:
        with np.errstate(all="ignore"):
            encoded = self._encoder.one(row)
            if encoded is not None:
                matrix, missing, warned = encoded
                return self._answers(matrix, {0: tuple(warned)} if warned else {}, missing)
        return self._predict([[value] for value in row], None, [], non_finite)

    def predict_columns(self, columns: Sequence[Column], non_finite: NonFinite = "error") -> Answers:
        """As `predict`, for at least one row, given as a column for each of `inputs`; None where missing."""
        return self._predict(columns, None, [], non_finite)

    def completed(self, rows: Sequence[Mapping[str, Any]], found: Sequence[Found] | None) -> list[Mapping[str, Any]]:  # noqa: ARG002
        """The rows with what was looked up."""
        return [*rows]

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """The model's inputs for rows that `predict` accepts, shape (rows, columns of the encoding)."""
        return self.bundle.parts.encoding.transform(self._parse(rows, "error")[0])

    def _predict(
        self,
        columns: Sequence[Column],
        rows: Sequence[Mapping[str, Any]] | None,
        strange: Sequence[int],
        non_finite: NonFinite,
    ) -> Answers:
        """`rows`: the same as `columns`, with what else they contain; `strange`: rows that must be read carefully."""
        # Numbers near float32's limits overflow, here and inside the model, to NaN, which JSON can't represent.
        with np.errstate(all="ignore"):
            lost_is_missing = non_finite == "missing"
            matrix, unusual, missing, warnings = self._encoder.many(columns, strange, lost_is_missing=lost_is_missing)
            places = np.flatnonzero(unusual).tolist()
            if places:
                careful = [self._row(columns, place) if rows is None else rows[place] for place in places]
                read, warned, gaps = self._parse(careful, non_finite, places)
                matrix[places] = self.bundle.parts.encoding.transform(read)
                warnings |= {place: tuple(found) for place, found in zip(places, warned, strict=True) if found}
                missing = {name: count for name in self.names if (count := missing.get(name, 0) + gaps.get(name, 0))}
            return self._answers(matrix, warnings, missing)

    def _row(self, columns: Sequence[Column], place: int) -> dict[str, Any]:
        values = [column[place] for column in columns]
        return {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in zip(self.names, values, strict=True)
        }

    def _answers(
        self, matrix: NDArray[np.float32], warnings: dict[int, tuple[Warned, ...]], missing: dict[str, int]
    ) -> Answers:
        scores = self.bundle.parts.decision.scores(self.bundle.run(matrix))
        finite = np.isfinite(scores)
        if not finite.all():
            lost = np.flatnonzero(~finite.reshape(len(matrix), -1).all(axis=1))
            raise InvalidRowsError(
                [Problem(int(row), None, "no_answer", "the model's result is not a finite number") for row in lost]
            )
        classes = self.schema.classes
        winners = self.bundle.winners(scores).tolist() if classes else []
        return Answers(self._values, classes, scores.tolist(), winners, warnings, missing)

    def _parse(
        self, rows: Sequence[Mapping[str, Any]], non_finite: NonFinite, places: Sequence[int] | None = None
    ) -> tuple[Columns, list[list[Warned]], dict[str, int]]:
        """Typed columns, the warnings of each row, and the number of rows without a value by feature.

        `places`: the rows' positions in the request, for messages; by default from 0.
        """
        at = range(len(rows)) if places is None else places
        problems: list[Problem] = []
        warnings: list[list[Warned]] = [[] for _ in rows]
        for row, warned in zip(rows, warnings, strict=True):
            if not row.keys() <= self._known:
                unknown = (name for name in row if name not in self._known)
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
                        problems.append(Problem(at[number], name, error.code, str(error)))
                        continue
                    if value is not None:
                        found[number] = value
                        continue
                if required:
                    problems.append(Problem(at[number], name, "missing", "a value is required"))
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
