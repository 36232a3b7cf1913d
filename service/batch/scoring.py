"""Predicts the rows of a table, chunk by chunk, and counts; what the service would refuse is reported by its place."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ml.data_params import CsvParams
from ml.schema import Schema
from ml.sources.reading import SourceError
from service.batch.cells import Convert, converters, plain
from service.batch.chunks import Chunk, Table
from service.batch.results import complete, writer
from service.predictor import Answer, InvalidRowsError, Predictor, Problem

REPORTED = 20
"""Maximum number of bad rows that are reported one by one; further ones are only counted."""


class BadRowError(Exception):
    """A row that the model can't use; the message names its place and what is wrong."""


@dataclass
class Tally:
    """What has been done so far."""

    predicted: int = 0
    bad: int = 0
    warned: Counter[str] = field(default_factory=Counter)
    """Rows by warning, such as `amount: out_of_range`."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the caller chose."""

    skip: bool = False
    """Leave bad rows out, instead of stopping at the first."""
    keep: tuple[str, ...] = ()
    """The input's columns that are copied; none: those that the model doesn't read."""
    csv: CsvParams = CsvParams()  # noqa: RUF009 - frozen


def score(
    table: Table,
    predictor: Predictor,
    path: Path,
    choices: Choices,
    say: Callable[[str], None],
    done: Callable[[Tally], None],
) -> Tally:
    """Write the predictions for the table's rows to `path`, complete or not at all, and return the counts.

    `say` gets a line for each bad row (up to REPORTED), `done` the counts after each chunk.
    Raises SourceError, OutputError, and BadRowError at the first bad row unless `choices.skip`.
    """
    kept = _kept(table, predictor.schema, choices.keep)
    _check_columns(table, predictor.schema, say)
    tally, reading = Tally(), _Reading(table, predictor.schema, choices.csv)
    with complete(path) as fresh:
        out = writer(fresh, path.suffix.lower(), predictor.schema, kept, table.types)
        try:
            for chunk in table.chunks:
                rows, answers, bad = _predicted(chunk, reading, predictor, skip=choices.skip)
                for place, reason in bad:
                    if not choices.skip:
                        raise BadRowError(
                            f"{table.place} {place}: {reason}; correct it, or leave such rows out with --bad-rows skip"
                        )
                    tally.bad += 1
                    if tally.bad <= REPORTED:
                        say(f"{table.place} {place}: {reason}")
                    elif tally.bad == REPORTED + 1:
                        say("further bad rows are only counted")
                if rows:
                    out.write(rows, answers)
                tally.predicted += len(rows)
                for answer in answers:
                    tally.warned.update({f"{w.field}: {w.code}" if w.field else w.code for w in answer.warnings})
                done(tally)
            if not tally.predicted:
                raise SourceError("no row could be predicted")
        finally:
            out.close()
    return tally


class _Reading:
    """From a file's row to a request's row."""

    def __init__(self, table: Table, schema: Schema, params: CsvParams) -> None:
        self._text, self._schema, self._params = table.text, schema, params
        self._names = [feature.name for feature in schema.features if feature.name in table.columns]
        self._convert: dict[str, Convert] | None = None
        # Columns whose values JSON doesn't have; a call for each value of all columns would take most of the time.
        types = {} if table.types is None else {field.name: field.type for field in table.types}
        self._unlike_json = [name for name in self._names if _is_unlike_json(types.get(name))]

    def __call__(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        if not self._text:
            names, unlike_json = self._names, self._unlike_json
            found = [{name: row[name] for name in names if name in row} for row in rows]
            for request in found:
                for name in unlike_json:
                    request[name] = plain(request[name])
            return found
        if self._convert is None:
            self._convert = converters(self._schema, rows, self._params)
        chosen = [(name, self._convert[name]) for name in self._names]
        return [{name: convert(row[name]) for name, convert in chosen} for row in rows]


def _is_unlike_json(kind: pa.DataType | None) -> bool:
    return kind is not None and (
        pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or pa.types.is_dictionary(kind)
    )


def _predicted(
    chunk: Chunk, reading: _Reading, predictor: Predictor, *, skip: bool
) -> tuple[list[dict[str, Any]], Sequence[Answer], list[tuple[int, str]]]:
    """The rows that can be predicted, their answers, and places and reasons of the others (without `skip`: of some)."""
    originals, places, bad = list(chunk.rows), list(chunk.places), list(chunk.broken)
    requests = reading(originals)
    while requests:
        try:
            return originals, predictor.predict(requests, "missing").answers, sorted(bad)
        except InvalidRowsError as error:
            wrong: dict[int, Problem] = {}
            for problem in error.every:
                wrong.setdefault(problem.row, problem)
            bad += [(places[row], _said(problem, originals[row])) for row, problem in wrong.items()]
            if not skip:
                break
            good = [row for row in range(len(requests)) if row not in wrong]
            originals, places = [originals[row] for row in good], [places[row] for row in good]
            requests = [requests[row] for row in good]
    return [], (), sorted(bad)


def _said(problem: Problem, row: Mapping[str, Any]) -> str:
    if problem.field is None:
        return problem.message
    value = row.get(problem.field)
    shown = "" if value is None or repr(value)[:50] in problem.message else f" ({str(value)[:50]!r})"
    return f"{problem.field}: {problem.message}{shown}"


def _kept(table: Table, schema: Schema, keep: tuple[str, ...]) -> list[str]:
    features = {feature.name for feature in schema.features}
    if not keep:
        return [name for name in table.columns if name not in features]
    if "*" in keep:
        return list(table.columns)
    if unknown := [name for name in keep if name not in table.columns]:
        raise SourceError(f"--keep: there is no column {unknown[0]!r}; the table has {', '.join(table.columns)}")
    return list(keep)


def _check_columns(table: Table, schema: Schema, say: Callable[[str], None]) -> None:
    lacking = [feature for feature in schema.features if feature.name not in table.columns]
    required = [feature.name for feature in lacking if feature.required]
    if required or len(lacking) == len(schema.features):
        names = ", ".join(map(repr, required or [feature.name for feature in lacking]))
        raise SourceError(
            f"the model needs the column{'s' * (len(required) != 1)} {names}; the table has {', '.join(table.columns)}"
        )
    if lacking:
        say(f"the table lacks columns, so these are missing in every row: {', '.join(f.name for f in lacking)}")
