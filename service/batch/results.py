"""Writes predictions as CSV, Parquet or JSON Lines: the file appears when it is complete, or not at all."""

import csv
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import parquet

from ml.schema import Schema
from service.batch.cells import plain
from service.predictor import Answer

FORMATS = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".jsonl": "lines", ".ndjson": "lines"}
"""Format by the ending of the file's name."""


class OutputError(Exception):
    """A file that can't be written; the message names it and the remedy."""


class Writer(Protocol):
    """Appends rows to an open file."""

    def write(self, kept: Sequence[Mapping[str, Any]], answers: Sequence[Answer]) -> None:
        """Append a row for each answer; `kept`: the values that are copied from the input."""

    def close(self) -> None:
        """Complete the file."""


def check_output(path: Path, *, force: bool) -> None:
    """Raises OutputError when the format is unknown, the folder doesn't exist, or the file does and not `force`."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path}: its name must end with {', '.join(FORMATS)}, which decides the format")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder")
    if path.exists() and not force:
        raise OutputError(f"{path} exists: --force replaces it")


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which gets its name at the end; after an error or an interruption it is removed.

    A run that was killed leaves its temporary file, and the next run overwrites it.
    """
    fresh = path.with_name(f".{path.name}.part")
    try:
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path} is being written by another run: wait for it, or name another file") from None
        try:
            os.truncate(handle, 0)
            yield fresh
            os.fsync(handle)
            fresh.replace(path)
        except OSError as error:
            raise OutputError(f"{path} can't be written: {error.strerror or error}") from None
        finally:
            fresh.unlink(missing_ok=True)
    finally:
        os.close(handle)


def writer(path: Path, ending: str, schema: Schema, kept: Sequence[str], types: pa.Schema | None) -> Writer:
    """A writer of the format that `ending` names; `types`: of the input's columns, if it has them.

    Raises OutputError when an output column would have the name of a kept column.
    """
    own = ["prediction", *(f"probability:{label}" for label in schema.classes), "warnings"]
    if clash := sorted(set(own) & set(kept)):
        raise OutputError(f"the input's column {clash[0]!r} has the name of a result: choose other columns with --keep")
    form = FORMATS[ending]
    if form == "csv":
        return _Csv(path, [*kept, *own], kept)
    return _Parquet(path, schema, kept, types) if form == "parquet" else _Lines(path, kept)


def _warned(answer: Answer) -> str:
    """The warnings as text, such as `amount: out_of_range; colour: unknown_category`."""
    return "; ".join(f"{w.field}: {w.code}" if w.field is not None else w.code for w in answer.warnings)


class _Csv:
    def __init__(self, path: Path, columns: Sequence[str], kept: Sequence[str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._out, self._kept = csv.writer(self._file, lineterminator="\n"), kept
        self._out.writerow(columns)

    def write(self, kept: Sequence[Mapping[str, Any]], answers: Sequence[Answer]) -> None:
        for row, answer in zip(kept, answers, strict=True):
            label = answer.prediction
            self._out.writerow(
                [
                    *(plain(row.get(name)) for name in self._kept),
                    str(label).lower() if isinstance(label, bool) else label,
                    *(answer.probabilities or {}).values(),
                    _warned(answer),
                ]
            )

    def close(self) -> None:
        self._file.close()


class _Lines:
    def __init__(self, path: Path, kept: Sequence[str]) -> None:
        self._file, self._kept = path.open("w", encoding="utf-8", newline=""), kept

    def write(self, kept: Sequence[Mapping[str, Any]], answers: Sequence[Answer]) -> None:
        for row, answer in zip(kept, answers, strict=True):
            line = {name: plain(row[name]) for name in self._kept if name in row} | {"prediction": answer.prediction}
            if answer.probabilities is not None:
                line["probabilities"] = answer.probabilities
            line["warnings"] = [{"field": w.field, "code": w.code, "message": w.message} for w in answer.warnings]
            self._file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path, schema: Schema, kept: Sequence[str], types: pa.Schema | None) -> None:
        self._path, self._kept, self._types = path, kept, types
        labels = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
        self._own = [
            pa.field("prediction", labels[schema.labels] if schema.classes else pa.float64()),
            *(pa.field(f"probability:{label}", pa.float64()) for label in schema.classes),
            pa.field("warnings", pa.string()),
        ]
        self._out: parquet.ParquetWriter | None = None

    def write(self, kept: Sequence[Mapping[str, Any]], answers: Sequence[Answer]) -> None:
        copied = []
        for name in self._kept:
            kind = self._types.field(name).type if self._types is not None and name in self._types.names else None
            try:
                copied.append(pa.array([row.get(name) for row in kept], type=kind))
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                raise OutputError(
                    f"the values of {name!r} are of different kinds, which Parquet can't hold: write JSON Lines "
                    "(.jsonl), or choose other columns with --keep"
                ) from None
        rows = [[a.prediction, *(a.probabilities or {}).values(), _warned(a)] for a in answers]
        own = [
            pa.array(list(column), type=field.type)
            for column, field in zip(zip(*rows, strict=True), self._own, strict=True)
        ]
        if self._out is None:
            fields = [pa.field(name, array.type) for name, array in zip(self._kept, copied, strict=True)]
            # A column without any value yet: its type is unknown, and text holds whatever a text file has.
            fields = [pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in fields]
            self._types = pa.schema(fields)
            self._out = parquet.ParquetWriter(self._path, pa.schema([*fields, *self._own]), compression="zstd")
        copied = [array.cast(self._out.schema.field(name).type) for name, array in zip(self._kept, copied, strict=True)]
        self._out.write_table(pa.table([*copied, *own], schema=self._out.schema))

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
