"""Reads any table from its address and gives its text cells their plain types: missing values, numbers, booleans."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml.data_params import DataParams
from ml.sources.reading import Read, SourceError, read_file
from ml.sources.written_numbers import (
    AmbiguousNumberError,
    Decimal,
    Written,
    decide,
    plain_numbers,
    rewrite,
    to_numbers,
    written,
)

BOOLEANS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
SAMPLE = 1000
"""Distinct texts of a column that must look like numbers before all its texts are parsed."""


def read(params: DataParams) -> Read:
    """The table at `params.uri`; text that says only numbers or booleans has become such, times stay text.

    Raises SourceError, one line, when it can't be read, or when a number can be read in two ways.
    """
    found = read_file(params)
    table, assumed = found.table, list(found.assumed)
    columns: dict[str, pd.Series[Any]] = {}
    texts: dict[str, pa.ChunkedArray] = {}
    for name in table.columns:
        column = _simple(table[name], name, assumed)
        if column is None:
            continue
        columns[name] = column
        declared = params.features.get(name)
        spellings = set(declared.missing if declared else ())
        spellings |= set() if name == params.target else set(params.missing)
        if not _is_text(column):
            columns[name] = _without(column, name, spellings, assumed)
            continue
        cells = pa.chunked_array([pa.array(column, type=pa.large_string(), from_pandas=True)])
        trimmed = pc.utf8_trim_whitespace(cells)
        missing = pc.is_in(trimmed, value_set=pa.array(["", *sorted(spellings)], type=pa.large_string()))
        cells = pc.if_else(missing, pa.scalar(None, type=pa.large_string()), cells)
        columns[name] = cells.to_pandas()
        if declared is None or declared.type in (None, "numeric"):
            texts[name] = pc.if_else(missing, pa.scalar(None, type=pa.large_string()), trimmed)
    _give_types(columns, texts, params, assumed)
    return Read(pd.DataFrame(columns), tuple(assumed))


def _simple(column: "pd.Series[Any]", name: str, assumed: list[str]) -> "pd.Series[Any] | None":
    """A column whose values Parquet can hold: categories as their values, decimals as numbers, mixed values as text.

    None if it can't be made such.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if isinstance(column.dtype, pd.PeriodDtype | pd.IntervalDtype):
        return column.astype(str).where(column.notna())
    if column.dtype != object:
        return column
    kinds = {type(value) for value in column[column.notna()]}
    nested = (list, tuple, dict, set)
    if not kinds or kinds <= {str} or kinds <= {bool}:
        return column
    if all(kind.__module__ == "decimal" or kind in (int, float) for kind in kinds):
        return pd.Series([None if pd.isna(value) else _float(value) for value in column], dtype=float)
    if not any(issubclass(kind, (*nested, bytes)) or kind.__module__ in ("numpy", "datetime") for kind in kinds):
        kept = column.map(lambda value: str(value).lower() if isinstance(value, bool) else str(value))
        return kept.where(column.notna(), None)
    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        assumed.append(
            f"column {name!r} is left out: its values are of different kinds, which no column of a table has"
        )
        return None
    return column


def _float(value: Any) -> float:
    """A Python number as float64; infinite where float64 ends, as a text with such a number is."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _is_text(column: "pd.Series[Any]") -> bool:
    if isinstance(column.dtype, pd.StringDtype):
        return True
    return column.dtype == object and all(isinstance(value, str) for value in column[column.notna()])


def _without(column: "pd.Series[Any]", name: str, spellings: set[str], assumed: list[str]) -> "pd.Series[Any]":
    """A column of numbers with those missing that are spelled so (-999), or that are infinite."""
    if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        return column
    numbers = []
    for spelling in spellings:
        try:
            numbers.append(float(spelling))
        except ValueError:
            continue
    marks = column.isin(numbers).to_numpy(dtype=bool)
    if pd.api.types.is_float_dtype(column.dtype):
        infinite = np.isinf(column.to_numpy(dtype=np.float64, na_value=np.nan))
        if infinite.any():
            assumed.append(f"column {name!r} has {infinite.sum()} infinite numbers, which count as missing")
        marks = marks | infinite
    return column.mask(marks) if marks.any() else column


def _give_types(
    columns: dict[str, "pd.Series[Any]"], texts: dict[str, pa.ChunkedArray], params: DataParams, assumed: list[str]
) -> None:
    """Replace, in `columns`, the texts that say numbers or booleans."""
    plain = {name for name, cells in texts.items() if plain_numbers(cells)}
    found: dict[str, Written] = {}
    for name in [name for name in texts if name not in plain]:
        distinct = pc.unique(texts[name].drop_null())
        if 0 < len(distinct) <= len(BOOLEANS) and set(distinct.to_pylist()) <= set(BOOLEANS):
            kind = "boolean" if texts[name].null_count else bool
            columns[name] = texts[name].to_pandas().map(BOOLEANS).astype(kind)
        elif written(_numbers_first(distinct.slice(0, SAMPLE))) and (how := written(distinct.to_pylist())):
            found[name] = how
    if params.csv.decimal == "," or any("," in how.fits for how in found.values()):
        # In a file with decimal commas, 1.234 may be 1234.
        for name in sorted(plain):
            pointed = pc.unique(texts[name].filter(pc.match_substring(texts[name], ".")))
            if len(pointed) and (how := written(pointed.to_pylist())):
                found[name] = how
    try:
        decided = decide(found, params.csv)
    except AmbiguousNumberError as error:
        raise SourceError(f"{params.uri}: {error}") from None
    for name in plain:
        if decided.get(name, ".") == ".":
            columns[name] = _without(to_numbers(texts[name]), name, set(), assumed)
    for name, how in found.items():
        if not how.plain or decided[name] == ",":
            rewritten = _rewritten(name, texts[name], how, decided[name], params, assumed)
            columns[name] = columns[name] if rewritten is None else rewritten


def _rewritten(
    name: str, cells: pa.ChunkedArray, how: Written, decimal: Decimal, params: DataParams, assumed: list[str]
) -> "pd.Series[Any] | None":
    """The numbers of a column, or their plain texts if there are words among them; None if their signs differ."""
    if len(how.signs - {""}) > 1 or {"%", ""} <= how.signs:
        signs = ", ".join(sign or "none" for sign in sorted(how.signs))
        assumed.append(f"column {name!r} stays text: its numbers have different signs ({signs})")
        return None
    values = {value: rewrite(value, decimal) for value in pc.unique(cells.drop_null()).to_pylist()}
    changed = next(((old, new) for old, new in values.items() if old != new), None)
    if changed is not None:
        asked = params.csv.decimal is None and any(sign in changed[0] for sign in ",.")
        settles = f" (data.csv.decimal: {decimal!r})" if asked else ""
        assumed.append(f"in column {name!r}, {changed[0]} is the number {changed[1]}{settles}")
    plain = pa.chunked_array([pa.array(cells.to_pandas().map(values), type=pa.large_string(), from_pandas=True)])
    return _without(to_numbers(plain), name, set(), assumed) if plain_numbers(plain) else plain.to_pandas()


def _numbers_first(sample: pa.Array) -> list[str]:
    """A sample without its words, whose number only the whole column tells."""
    values: list[str] = sample.to_pylist()
    return [value for value in values if any(sign.isdigit() for sign in value)] or values
