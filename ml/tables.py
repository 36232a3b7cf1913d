"""Reads and writes tables, and converts their columns to the schema's types; no other module does this."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.schema import Columns, Feature, Schema, SchemaError

TRUE = frozenset({"true", "yes", "1", "1.0", "t", "y"})
FALSE = frozenset({"false", "no", "0", "0.0", "f", "n"})
OFFSET = r"\d[T ]\d{2}.*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"
"""Matches an ISO 8601 time with an offset from UTC."""


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """The table at `path`; FileNotFoundError if the stage that creates it has not run."""
    return pd.read_parquet(path, columns=columns)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write the table; the same rows give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False, compression="zstd")


def to_columns(table: pd.DataFrame, schema: Schema) -> Columns:
    """The schema's features as typed arrays; if the table lacks a column, its values are missing in every row.

    Raises SchemaError naming the column, the value and its first row when a cast is impossible.
    """
    columns: Columns = {}
    for feature in schema.features:
        if feature.name in table:
            columns[feature.name] = cast_column(table[feature.name], feature)
        else:
            empty: NDArray[np.generic] = (
                np.full(len(table), None, dtype=object)
                if feature.type in ("categorical", "text")
                else np.full(len(table), np.nan)
            )
            columns[feature.name] = empty
    return columns


def cast_column(column: "pd.Series[Any]", feature: Feature) -> NDArray[np.generic]:
    """A column converted to the feature's type, as `ml.schema.Columns` describes it.

    Raises SchemaError naming the column, the value and its first row when a value can't be converted.
    """
    values, unreadable = read_column(column, feature)
    if unreadable.any():
        first = int(np.flatnonzero(unreadable)[0])
        raise SchemaError(
            f"column {feature.name!r} is {feature.type}, but {int(unreadable.sum())} of its values are not: "
            f"the first is {column.iloc[first]!r} in row {first} "
            "(declare another type in params.yaml, or correct the data)"
        )
    return values


def read_column(column: "pd.Series[Any]", feature: Feature) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """A column converted to the feature's type, and which rows have a value (not missing) that can't be converted."""
    present = column.notna().to_numpy(dtype=bool)
    nested = holds_many(column)
    if nested.any():
        column = column.mask(nested)
    values: NDArray[np.generic]
    match feature.type:
        case "numeric":
            if column.dtype.kind in "mM":  # as numbers they would depend on the time unit of the file
                numbers = np.full(len(column), np.nan)
            else:
                numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            values, readable = numbers, np.isfinite(numbers)
        case "boolean":
            words = column.astype("string").str.strip().str.lower()
            yes, no = (words.isin(spellings).to_numpy(dtype=bool) for spellings in (TRUE, FALSE))
            values, readable = np.where(yes, 1.0, np.where(no, 0.0, np.nan)), yes | no
        case "datetime":
            moments = parse_times(column, utc=feature.utc)
            values = np.asarray((moments - pd.Timestamp(0)) / pd.Timedelta("1s"), dtype=np.float64)
            readable = ~np.isnan(values)
        case _:
            spelled: NDArray[np.object_] = as_text(column).to_numpy(dtype=object, copy=True)
            spelled[column.isna().to_numpy(dtype=bool)] = None
            values, readable = spelled, ~nested
    return values, present & ~readable


def holds_many(column: "pd.Series[Any]") -> NDArray[np.bool_]:
    """Which rows contain a list, an array, a mapping or bytes; a request can't send these as a single value."""
    if column.dtype != object:
        return np.zeros(len(column), dtype=bool)
    return np.array([isinstance(value, list | tuple | dict | set | bytes | np.ndarray) for value in column], dtype=bool)


def as_text(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Values as texts of categories: whole floats without `.0`, booleans as true and false."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.map({True: "true", False: "false"}).astype("string").astype(object)
    if pd.api.types.is_float_dtype(column.dtype):
        whole = column.dropna() % 1 == 0
        if whole.all():
            return column.astype("Int64").astype("string").astype(object)
    return column.astype("string").astype(object)


def parse_times(column: "pd.Series[Any]", *, utc: bool) -> "pd.Series[Any]":
    """Naive timestamps: in UTC if `utc`, else wall-clock times as written; NaT for values that aren't times.

    Without `utc`, a time with an offset gives NaT. With `utc`, a time without an offset counts as UTC.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return column
    written = as_text(column)
    if utc:
        return pd.to_datetime(written, errors="coerce", format="ISO8601", utc=True).dt.tz_localize(None)
    return pd.to_datetime(written.mask(_with_offset(written)), errors="coerce", format="ISO8601")


def has_offset(column: "pd.Series[Any]") -> bool:
    """Whether any time of the column is written with an offset from UTC."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return True
    return not pd.api.types.is_datetime64_dtype(column.dtype) and bool(_with_offset(column).any())


def _with_offset(column: "pd.Series[Any]") -> NDArray[np.bool_]:
    return column.astype("string").str.contains(OFFSET).fillna(False).to_numpy(dtype=bool)
