"""Reads a table in any format that the pipeline reads, a chunk of rows at a time, with the place of each row."""

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

import fsspec
import pandas as pd
import pyarrow as pa
from fsspec.compression import compr
from fsspec.utils import infer_compression
from pyarrow import dataset

from ml.data_params import CsvParams, Format
from ml.sources.csv_dialect import BLANKS, Dialect, DialectError, find_dialect
from ml.sources.reading import SourceError, format_by_content, format_by_name, records_of

ROWS = 4000
"""Rows in a chunk: with more, a row takes no less time."""
HEAD = 1_000_000
"""Bytes from which a text file's delimiter and encoding are inferred."""
LONGEST_FIELD = 1_000_000
"""Characters of a CSV field; a quote that is never closed would otherwise make the rest of the file a single field."""
INDEX = re.compile(r"__index_level_\d+__")
"""pandas' own columns in Parquet files."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of a file, one after the other."""

    places: tuple[int, ...]
    """The line of each row in a text file, else its number; both from 1."""
    rows: tuple[dict[str, Any], ...]
    broken: tuple[tuple[int, str], ...] = ()
    """Place and reason of what isn't a row."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is read from its beginning to its end, once."""

    columns: tuple[str, ...]
    text: bool
    """Whether all values are texts, as in a CSV file."""
    place: str
    """What a place is: `line` or `row`."""
    chunks: Iterator[Chunk]
    total: int | None
    """Bytes or rows; None if unknown."""
    done: Callable[[], int]
    """How much of `total` has been read."""
    unit: str
    types: pa.Schema | None = None
    """The types of the columns, if the file has them."""
    assumed: tuple[str, ...] = ()
    """What was inferred and could be otherwise, a sentence each."""


def open_table(uri: str, params: CsvParams, files: ExitStack) -> Table:
    """The table at `uri`: a file, a folder of Parquet files, an s3:// or https:// address. `files` closes what is open.

    Raises SourceError, one line, when it can't be read; the chunks raise it, too.
    """
    try:
        kind = format_by_name(uri) or _sniffed(uri, files)
        if kind == "csv":
            return _csv_table(uri, params, files)
        if kind == "json":
            return _json_table(uri, files)
        return _pandas_table(uri, kind, files) if kind in ("stata", "sas") else _arrow_table(uri, kind)
    except Exception as error:  # readers raise many kinds of errors
        raise _readable(uri, error) from None


def _readable(uri: str, error: Exception) -> SourceError:
    """Any reader's error as one line that begins with the address."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is None:
        return SourceError(f"{uri} not found")
    text = " ".join(str(error).split()).replace("in params.yaml", "with --csv") or type(error).__name__
    if isinstance(error, SourceError | DialectError):
        return SourceError(text if text.startswith(uri) else f"{uri}: {text}")
    return SourceError(f"{uri} can't be read: {text}")


def _guarded(uri: str, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    try:
        yield from chunks
    except Exception as error:
        raise _readable(uri, error) from None


# --- text ---


def _opened(uri: str, files: ExitStack) -> tuple[IO[bytes], int | None, Callable[[], int]]:
    """The decompressed file, the size of the file as it is stored, and how much of that has been read."""
    system, path = fsspec.core.url_to_fs(uri)
    total: int | None = system.size(path)
    raw = files.enter_context(system.open(path, "rb"))
    file = files.enter_context(compr[infer_compression(uri)](raw, mode="rb"))
    return file, total, lambda: total or 0 if raw.closed else raw.tell()


def _sniffed(uri: str, files: ExitStack) -> Format:
    return format_by_content(_opened(uri, files)[0].read(4096))


def _csv_table(uri: str, params: CsvParams, files: ExitStack) -> Table:
    file, total, done = _opened(uri, files)
    head = file.read(HEAD)
    if len(head) == HEAD:  # without the broken sign or line at its end
        wide = b"\0" in head[:4096]
        head = head[: HEAD // 4 * 4] if wide else head[: head.rfind(b"\n") + 1] or head
    dialect = find_dialect(head, uri, params)
    if not dialect.width:
        raise SourceError("it contains no rows")
    file.seek(0)
    lines = files.enter_context(io.TextIOWrapper(file, encoding=dialect.encoding, newline=""))
    for _ in range(dialect.skip):
        lines.readline()
    records = _records(lines, dialect)
    names = list(params.names) if params.names is not None else [name.strip() for name in next(records)[1]]
    if params.names is None:
        names[0] = names[0].lstrip("# ") or names[0]
        names = names[: dialect.header]
    first = next(records, None)
    if first is None:
        raise SourceError("it contains no rows")
    width, trailing = len(names), False
    if len(first[1]) == width + 1:
        # As in training: R's write.table names no column for the rows' names, others end each row with a delimiter.
        trailing = first[1][-1] == ""
        names, width = (names if trailing else ["", *names]), width + 1
    names = _named(names)

    def chunks() -> Iterator[Chunk]:
        for group in _grouped(itertools.chain([first], records)):
            good = [(line, fields) for line, fields in group if len(fields) == width]
            broken = [
                (line, f"{len(fields)} fields where {width} are expected")
                for line, fields in group
                if len(fields) != width
            ]
            yield Chunk(
                tuple(line for line, _ in good),
                tuple(dict(zip(names, fields, strict=not trailing)) for _, fields in good),
                tuple(broken),
            )

    return Table(tuple(names), True, "line", _guarded(uri, chunks()), total, done, "B", assumed=dialect.assumed)


def _records(lines: io.TextIOWrapper, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The line at which each record begins, from 1, and its fields; empty lines are left out."""
    line = dialect.skip
    try:
        if dialect.delimiter == BLANKS:
            for line, text in enumerate(lines, start=dialect.skip + 1):
                if fields := [field.strip('"') for field in re.findall(r'"[^"]*"|\S+', text)]:
                    yield line, fields
            return
        csv.field_size_limit(LONGEST_FIELD)
        reader = csv.reader(lines, delimiter=dialect.delimiter, skipinitialspace=True)
        for fields in reader:
            if fields:
                yield line + 1, fields
            line = dialect.skip + reader.line_num
    except csv.Error:
        raise SourceError(
            f"line {line + 1} has a field of more than {LONGEST_FIELD:,} characters: is a quote not closed?"
        ) from None
    except UnicodeDecodeError as error:
        raise SourceError(
            f"after line {line}, its text is not {dialect.encoding} ({error.reason}): set data.csv.encoding with --csv"
        ) from None


def _named(names: list[str]) -> list[str]:
    """The names of the columns, as in training: distinct, none empty."""
    named = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
    if repeated := sorted({name for name in named if named.count(name) > 1}):
        raise SourceError(f"column names repeat: {', '.join(map(repr, repeated[:5]))}; give each column its own name")
    return named


def _json_table(uri: str, files: ExitStack) -> Table:
    """JSON Lines, an object a line; an array of objects is read as a whole."""
    file, total, done = _opened(uri, files)
    lines = files.enter_context(io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n"))
    first = next((text for text in lines if text.strip()), "")
    if first.lstrip().startswith("["):
        rows = records_of((first + lines.read()).encode())
        found: Iterator[Chunk] = (
            Chunk(tuple(place for place, _ in group), tuple(row for _, row in group))
            for group in _grouped(enumerate(rows, start=1))
        )
    else:
        lines.seek(0)
        found = _parsed(lines)
    start = next(found, None)
    if start is None or not start.rows:
        raise SourceError("it contains no rows" if start is None else f"line {start.broken[0][0]} {start.broken[0][1]}")
    columns = tuple(dict.fromkeys(name for row in start.rows for name in row))
    place = "row" if first.lstrip().startswith("[") else "line"
    return Table(columns, False, place, _guarded(uri, itertools.chain([start], found)), total, done, "B")


def _parsed(lines: Iterable[str]) -> Iterator[Chunk]:
    for group in _grouped((n, text) for n, text in enumerate(lines, start=1) if text.strip()):
        rows: list[tuple[int, dict[str, Any]]] = []
        broken: list[tuple[int, str]] = []
        for line, text in group:
            try:
                rows += [(line, row) for row in records_of(text.strip().encode())]
            except SourceError:
                broken.append((line, "is not a JSON object"))
        yield Chunk(tuple(line for line, _ in rows), tuple(row for _, row in rows), tuple(broken))


# --- files whose values have types ---


def _arrow_table(uri: str, kind: Format) -> Table:
    system, path = fsspec.core.url_to_fs(uri)
    found = dataset.dataset(path, format=kind, filesystem=system, partitioning="hive")
    columns = [name for name in found.schema.names if not INDEX.fullmatch(name)]
    if not columns:
        raise SourceError("it contains no columns")
    # Few batches ahead: they are kept in memory.
    batches = found.scanner(columns, batch_size=ROWS, batch_readahead=1, fragment_readahead=1).to_batches()
    types = pa.schema([found.schema.field(name) for name in columns])
    return _typed(uri, types, batches, found.count_rows())


def _pandas_table(uri: str, kind: Format, files: ExitStack) -> Table:
    file, _, _ = _opened(uri, files)
    if kind == "stata":
        frames: Any = pd.read_stata(file, chunksize=ROWS)
    else:
        ending = "xport" if uri.lower().endswith(".xpt") else "sas7bdat"
        frames = pd.read_sas(file, format=ending, encoding="infer", chunksize=ROWS)  # type: ignore[call-overload]
    batches = (batch for frame in frames for batch in pa.Table.from_pandas(frame, preserve_index=False).to_batches())
    first = next(batches)
    return _typed(uri, first.schema, itertools.chain([first], batches), None)


def _typed(uri: str, types: pa.Schema, batches: Iterable[pa.RecordBatch], total: int | None) -> Table:
    read = 0

    def chunks() -> Iterator[Chunk]:
        nonlocal read
        for batch in batches:
            for start in range(0, len(batch), ROWS):
                rows = tuple(batch.slice(start, ROWS).to_pylist())
                yield Chunk(tuple(range(read + 1, read + len(rows) + 1)), rows)
                read += len(rows)

    return Table(tuple(types.names), False, "row", _guarded(uri, chunks()), total, lambda: read, "rows", types)


def _grouped(items: Iterable[Any]) -> Iterator[list[Any]]:
    items = iter(items)
    while group := list(itertools.islice(items, ROWS)):
        yield group
