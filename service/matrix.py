"""Rows with usual values (usual.py) as the model's matrix, quickly; it is bitwise that of `Encoding.transform`.

A single row is encoded in plain Python, because each call of numpy costs about a microsecond whatever the number of
rows; many rows are encoded column by column in numpy. Tests compare both with the careful readers on any values.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml.encoding import DatetimeEncoder, Encoder, Encoding, LookupEncoder, NumericEncoder, OneHotEncoder
from ml.schema import Schema
from ml.values import UnreadableError
from service.inputs import Reader, Warned
from service.usual import Column, Unusual, Usual, read_column, usual_of

CELLS = 1 << 18
"""Maximum size of the table in which an encoder's numbers are looked up by category, or by a cross's categories."""
CLOCK = frozenset({"hour", "minute", "dayofweek", "epoch_days"})
"""Parts of a time that are computed without numpy for a single row."""


class Rows(NamedTuple):
    """Encoded rows."""

    matrix: NDArray[np.float32]
    """Shape (n, k); anything in unusual rows."""
    unusual: NDArray[np.bool_]
    """Rows that the careful readers must read, shape (n,)."""
    missing: dict[str, int]
    """Usual rows without a value, by feature."""
    warnings: dict[int, tuple[Warned, ...]]
    """About times outside the training range, by usual row."""


class _Table(NamedTuple):
    """An encoder of categories as a table of its numbers."""

    places: tuple[int, ...]
    """Of the features."""
    sizes: tuple[int, ...]
    """Codes of each feature."""
    to: slice
    """Columns of the matrix."""
    numbers: NDArray[np.float32]
    """By combination of codes, the last feature's first."""
    rows: list[list[float]]
    """The same as Python's numbers."""


class RowEncoder:
    """Encodes rows for a model; `readers` are the careful readers of the schema's features."""

    def __init__(self, schema: Schema, encoding: Encoding, readers: Sequence[Reader]) -> None:
        self._usual = [usual_of(feature, schema, read) for feature, read in zip(schema.features, readers, strict=True)]
        self._names = [usual.name for usual in self._usual]
        ends = [*accumulate(len(encoder.names()) for encoder in encoding.encoders)]
        self._width = ends[-1]
        self._plain: dict[int, int] = {}
        """Numbers that the matrix contains as they are: the column by the place of the feature."""
        self._tables: list[_Table] = []
        self._others: list[tuple[tuple[int, ...], slice, Encoder]] = []
        for encoder, start, end in zip(encoding.encoders, [0, *ends], ends, strict=False):
            columns = encoder.columns if isinstance(encoder, OneHotEncoder | LookupEncoder) else (encoder.column,)
            places = tuple(map(self._names.index, columns))
            table = self._table(places, slice(start, end), encoder)
            if isinstance(encoder, NumericEncoder) and _is_plain(encoder) and places[0] not in self._plain:
                self._plain[places[0]] = start
            elif table is not None:
                self._tables.append(table)
            else:
                self._others.append((places, slice(start, end), encoder))
        # The column after the last is for numbers that the matrix doesn't contain as they are.
        self._numbers = [
            (place, self._plain.get(place, self._width), usual.low, usual.high, usual.sentinels, usual.optional)
            for place, usual in enumerate(self._usual)
            if usual.low <= usual.high
        ]
        self._rest = [(place, usual) for place, usual in enumerate(self._usual) if usual.low > usual.high]

    def _table(self, places: tuple[int, ...], to: slice, encoder: Encoder) -> _Table | None:
        codes = [self._usual[place].codes for place in places]
        sizes = tuple(len(code) for code in codes if code is not None)
        cells = math.prod(sizes) * (to.stop - to.start)
        if len(sizes) < len(places) or cells > CELLS:
            return None
        combinations = zip(*product(*(code for code in codes if code is not None)), strict=True)
        columns = {
            self._names[place]: np.array(texts, dtype=object) for place, texts in zip(places, combinations, strict=True)
        }
        numbers = encoder.transform(columns)
        return _Table(places, sizes, to, numbers.astype(np.float32), numbers.tolist())

    def one(self, row: Sequence[Any]) -> tuple[NDArray[np.float32], dict[str, int], list[Warned]] | None:
        """The matrix of a row, shape (1, k), 1 for each feature without a value, and the warnings about times outside
        the training range; None if the row is unusual in another way.

        `row`: the values in the order of the schema's features.
        """
        read, out = list(row), [math.nan] * (self._width + 1)
        warned: list[Warned] = []
        try:
            blank = self._read_numbers(read, out) + self._read_rest(read, out, warned)
        except Unusual:
            return None
        if len(blank) == len(read):
            return None
        for table in self._tables:
            index = 0
            for place, size in zip(table.places, table.sizes, strict=True):
                index = index * size + read[place]
            out[table.to] = table.rows[index]
        for places, to, encoder in self._others:
            out[to] = self._encode_one(read, places, encoder)
        return np.array([out[:-1]], dtype=np.float32), {self._names[place]: 1 for place in sorted(blank)}, warned

    def _read_numbers(self, read: list[Any], out: list[float]) -> list[int]:
        """Read the numeric features, in place, write them to the matrix's row, and return those without a value."""
        blank = []
        for place, column, low, high, sentinels, optional in self._numbers:
            value = read[place]
            kind = type(value)
            if (kind is float or kind is int) and low <= value <= high and value not in sentinels:
                out[column] = read[place] = float(value)
            elif value is None and optional:
                blank.append(place)
            else:
                raise Unusual
        return blank

    def _read_rest(self, read: list[Any], out: list[float], warned: list[Warned]) -> list[int]:
        """The same for all other features, with the warnings about their times."""
        blank = []
        for place, usual in self._rest:
            value = read[place]
            if value is not None:
                try:
                    value = usual.read(value)
                except Unusual:
                    value = _outside(usual, value, warned)
            if value is None:
                if not usual.optional:
                    raise Unusual
                blank.append(place)
            elif place in self._plain:
                out[self._plain[place]] = value
            read[place] = value if usual.codes is None else usual.codes[value]
        return blank

    def _encode_one(self, read: list[Any], places: tuple[int, ...], encoder: Encoder) -> list[float]:
        value = read[places[0]]
        if isinstance(encoder, DatetimeEncoder) and CLOCK.issuperset(encoder.parts):
            return [math.nan if value is None else _clock_part(value, part) for part in encoder.parts]
        if isinstance(encoder, NumericEncoder) and not encoder.knots:
            return [math.nan if value is None else (value - encoder.shift) / encoder.scale]
        columns = self._columns(places, [np.array([read[place]], dtype=self._usual[place].dtype) for place in places])
        return encoder.transform(columns)[0].tolist()

    def many(self, columns: Sequence[Column], strange: Sequence[int], *, lost_is_missing: bool) -> Rows:
        """The matrix of rows, given by column in the order of the schema's features; at least one row.

        `strange`: rows that are unusual for another reason than these values.
        `lost_is_missing`: NaN and infinity mean that the value is missing; otherwise such a row is unusual.
        """
        count = len(columns[0])
        unusual, empty = np.zeros(count, dtype=np.bool_), np.ones(count, dtype=np.bool_)
        unusual[list(strange)] = True
        gaps: dict[str, NDArray[np.bool_]] = {}
        read: list[NDArray[Any]] = []
        warned: dict[int, list[Warned]] = {}
        for usual, column in zip(self._usual, columns, strict=True):
            array, blank, odd = read_column(usual, column, lost_is_missing=lost_is_missing)
            for place in [] if usual.outside is None else np.flatnonzero(odd).tolist():
                with suppress(Unusual):
                    array[place] = _outside(usual, column[place], warned.setdefault(place, []))
                    odd[place] = False
            read.append(array)
            unusual |= odd
            empty &= blank
            if usual.optional:
                gaps[usual.name] = blank
            else:
                unusual |= blank
        unusual |= empty
        usual_rows = ~unusual
        missing = {name: rows for name, gap in gaps.items() if (rows := int(np.count_nonzero(gap & usual_rows)))}
        warnings = {place: tuple(found) for place, found in warned.items() if found and usual_rows[place]}
        return Rows(self._encode(read, count), unusual, missing, warnings)

    def _encode(self, read: list[NDArray[Any]], count: int) -> NDArray[np.float32]:
        matrix = np.empty((count, self._width), dtype=np.float32)
        for place, column in self._plain.items():
            matrix[:, column] = read[place]
        for table in self._tables:
            index = read[table.places[0]]
            for place, size in zip(table.places[1:], table.sizes[1:], strict=True):
                index = index * size + read[place]
            matrix[:, table.to] = table.numbers[index]
        for places, to, encoder in self._others:
            matrix[:, to] = encoder.transform(self._columns(places, [read[place] for place in places]))
        return matrix

    def _columns(self, places: tuple[int, ...], read: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The columns as an encoder takes them: codes as texts."""
        columns = {}
        for place, array in zip(places, read, strict=True):
            codes = self._usual[place].codes
            columns[self._names[place]] = array if codes is None else np.array([*codes], dtype=object)[array]
        return columns


def _outside(usual: Usual, value: Any, warned: list[Warned]) -> float:
    """A time outside the training range, with its warning; raises Unusual for what is unusual in another way."""
    if usual.outside is None:
        raise Unusual
    try:
        seconds = usual.outside(value.item() if isinstance(value, np.generic) else value, warned)
    except UnreadableError:
        raise Unusual from None
    if seconds is None:  # a text that means that it is missing
        raise Unusual
    return float(seconds)


def _is_plain(encoder: NumericEncoder) -> bool:
    return encoder.shift == 0 and encoder.scale == 1 and not encoder.knots


def _clock_part(seconds: float, part: str) -> float:
    """As the encoder computes it in numpy."""
    days = float(math.floor(seconds / 86400))
    match part:
        case "hour":
            return (seconds - days * 86400) / 3600
        case "minute":
            return float(math.floor((seconds % 3600) / 60))
        case "dayofweek":
            return (days + 3) % 7
        case _:
            return days
