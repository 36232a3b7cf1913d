"""Reads and writes tables, and converts their columns to the schema's types; no other module does this.

ml/values.py decides what a single value means, as in the service; here it is applied to a column's different values.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml import values
from ml.schema import Columns, Feature, Form, Schema, SchemaError
from ml.time_layouts import AmbiguousTimesError, find_layout

NO_SPELLINGS: frozenset[str] = frozenset()


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """The table at `path`; FileNotFoundError if the stage that creates it has not run."""
    if not path.exists():
        raise FileNotFoundError(f"{path} not found: `make repro` makes it")
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
            columns[feature.name] = cast_column(table[feature.name], feature, schema.spellings(feature))
        else:
            empty: NDArray[np.generic] = (
                np.full(len(table), None, dtype=object)
                if feature.type in ("categorical", "text")
                else np.full(len(table), np.nan)
            )
            columns[feature.name] = empty
    return columns


def cast_column(
    column: "pd.Series[Any]", feature: Feature, missing: frozenset[str] = NO_SPELLINGS
) -> NDArray[np.generic]:
    """A column converted to the feature's type, as `ml.schema.Columns` describes it.

    `missing`: the spellings of a missing value; blank text is always missing.
    Raises SchemaError naming the column, the value and its first row when a value can't be converted.
    """
    found, unreadable = read_column(column, feature, missing)
    if unreadable.any():
        first = int(np.flatnonzero(unreadable)[0])
        why, remedy = "", "declare another type in params.yaml, or correct the data"
        if feature.type == "datetime":
            why = f": it {_why_no_time(column.iloc[first], feature)}"
            remedy = f"data.features.{feature.name} in params.yaml declares type, format and timezone"
        raise SchemaError(
            f"column {feature.name!r} is {feature.type}, but {int(unreadable.sum())} of its values are not: "
            f"the first is {column.iloc[first]!r} in row {first}{why} ({remedy})"
        )
    return found


def read_column(
    column: "pd.Series[Any]", feature: Feature, missing: frozenset[str] = NO_SPELLINGS
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """A column converted to the feature's type, and which rows have a value (not missing) that can't be converted."""
    nested = holds_many(column)
    if nested.any():
        column = column.mask(nested)
    absent = is_missing(column, missing) & ~nested
    if absent.any():
        column = column.mask(absent)
    found: NDArray[np.generic]
    match feature.type:
        case "numeric":
            found = _numbers(column)
            readable = np.isfinite(found.astype(np.float64))
        case "boolean":
            found = by_distinct(column, values.truth, np.float64)
            readable = ~np.isnan(found.astype(np.float64))
        case "datetime":
            found = read_times(column, feature)
            readable = ~np.isnan(found.astype(np.float64))
        case _:
            found, readable = by_distinct(column, values.spell, object), ~nested
    return found, ~absent & ~readable


def by_distinct(column: "pd.Series[Any]", read: Callable[[Any], object], dtype: Any) -> NDArray[Any]:
    """`read` of every value, called once for each different value; None (or NaN) where there is no single value."""
    nested = holds_many(column)
    if nested.any():
        column = column.mask(nested)
    codes, distinct = pd.factorize(column)
    read_once = np.empty(len(distinct) + 1, dtype=dtype)
    read_once[-1] = None if dtype is object else np.nan
    for place, value in enumerate(np.asarray(distinct, dtype=object) if column.dtype.kind in "mM" else distinct):
        read_once[place] = read(value)
    return read_once[codes]


def is_missing(column: "pd.Series[Any]", spellings: frozenset[str] = NO_SPELLINGS) -> NDArray[np.bool_]:
    """Which rows have no value: null, NaN, blank, or spelled as one of the spellings."""
    null = column.isna().to_numpy(dtype=bool)
    if _is_plain(column) and all(values.number(text) is None for text in spellings):
        return null
    return null | (by_distinct(column, lambda value: float(values.is_missing(value, spellings)), np.float64) == 1)


def holds_many(column: "pd.Series[Any]") -> NDArray[np.bool_]:
    """Which rows contain a list, an array, a mapping or bytes; a request can't send these as a single value."""
    if column.dtype != object:
        return np.zeros(len(column), dtype=bool)
    return np.array([isinstance(value, list | tuple | dict | set | bytes | np.ndarray) for value in column], dtype=bool)


def as_text(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Values as texts of categories (`values.spell`); None where null."""
    return pd.Series(by_distinct(column, values.spell, object), index=column.index, name=column.name, dtype=object)


def forms_of(column: "pd.Series[Any]") -> tuple[Form, ...]:
    """How JSON writes the column's values."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return ("boolean",)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return ("number",)
    kinds = {type(value) for value in column.dropna()} if column.dtype == object else {str}
    found: set[Form] = {
        "boolean"
        if issubclass(kind, bool | np.bool_)
        else "number"
        if issubclass(kind, int | float | np.number)
        else "text"
        for kind in kinds
    }
    return tuple(sorted(found))


def merged_spellings(column: "pd.Series[Any]") -> dict[str, list[str]]:
    """Categories whose texts differ in surrounding blanks or Unicode form, with these texts."""
    written: dict[str, list[str]] = {}
    if not _is_plain(column):
        for value in column.dropna().unique():
            if isinstance(value, str):
                written.setdefault(values.clean(value), []).append(value)
    return {text: sorted(texts) for text, texts in written.items() if len(texts) > 1}


# --- times ---


def learn_times(column: "pd.Series[Any]", name: str, layout: str | None, zone: str | None) -> Feature:
    """How the times of a column are written, as a feature: the declared `layout` and `zone`, or what all values fit.

    Raises SchemaError when the order of day and month, or the unit of a number, is ambiguous.
    """
    if _is_moments(column):
        aware = isinstance(column.dtype, pd.DatetimeTZDtype)
        return Feature(name=name, type="datetime", timezone=zone, utc=aware and zone is None)
    distinct = list(column.dropna().unique())
    if layout is None:
        try:
            found = find_layout(distinct, declared=True)
        except AmbiguousTimesError as error:
            raise _ambiguous(name, error) from None
        layout = None if found == "iso" else found
    offsets = {values.has_offset(value, layout) for value in distinct}
    if offsets == {True, False} and zone is None:
        zone = "UTC"  # times without an offset count as UTC, here and in a request
    return Feature(
        name=name, type="datetime", format=layout, timezone=zone, utc=True in offsets and zone in (None, "UTC")
    )


def are_times(column: "pd.Series[Any]") -> bool:
    """Whether all values of an undeclared column of texts are dates or times.

    Raises SchemaError when the order of day and month is ambiguous.
    """
    try:
        return find_layout(column.dropna().unique(), declared=False) is not None
    except AmbiguousTimesError as error:
        raise _ambiguous(str(column.name), error) from None


def _ambiguous(name: str, error: AmbiguousTimesError) -> SchemaError:
    layouts = " or ".join(f'"{layout}"' for layout in error.layouts)
    return SchemaError(
        f"column {name!r}: {error}: declare data.features.{name}.format in params.yaml as {layouts} "
        "(data.time_format for the column data.time)"
    )


def read_times(column: "pd.Series[Any]", feature: Feature) -> NDArray[np.float64]:
    """Seconds since 1970, as `values.read_time`; NaN for values that aren't times as the feature describes them."""
    if _is_moments(column):
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            if feature.timezone is None and not feature.utc:
                return np.full(len(column), np.nan)
            column = column.dt.tz_convert(feature.timezone or "UTC").dt.tz_localize(None)
        elif feature.utc and feature.timezone is None:
            return np.full(len(column), np.nan)
        moments = column.to_numpy(dtype="datetime64[us]")
        return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)

    def read(value: object) -> float:
        try:
            return values.read_time(value, feature.format, feature.timezone, utc=feature.utc)
        except values.UnreadableError:
            return np.nan

    return by_distinct(column, read, np.float64)


def moments_of(column: "pd.Series[Any]", feature: Feature) -> "pd.Series[Any]":
    """The times as timestamps: with the zone UTC if `feature.utc`, else without a zone; NaT where there is none."""
    if _is_moments(column) and feature.timezone is None:
        return column
    micro = np.round(read_times(column, feature) * 1e6)
    whole = np.where(np.isnan(micro), np.iinfo(np.int64).min, micro).astype(np.int64)  # the smallest number is NaT
    found = pd.Series(whole.view("datetime64[us]"), index=column.index, name=column.name)
    return found.dt.tz_localize("UTC") if feature.utc else found


def _why_no_time(value: object, feature: Feature) -> str:
    try:
        values.read_time(value, feature.format, feature.timezone, utc=feature.utc)
    except values.UnreadableError as error:
        return str(error) if str(error).startswith("must") else f"can't be read: {error}"
    return "can't be read"


def _is_moments(column: "pd.Series[Any]") -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(column.dtype))


def _is_plain(column: "pd.Series[Any]") -> bool:
    """Whether the column holds numbers, truth values or timestamps, and no texts."""
    return column.dtype.kind in "biufmM"


def _numbers(column: "pd.Series[Any]") -> NDArray[np.float64]:
    if column.dtype.kind in "mM":  # as numbers they would depend on the time unit of the file
        return np.full(len(column), np.nan)
    return np.asarray(pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))
