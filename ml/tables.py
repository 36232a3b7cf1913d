"""Tables on disk, and the one place that turns a table's columns into the schema's types."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.schema import Columns, Feature, Schema, SchemaError

TRUE = frozenset({"true", "yes", "1", "1.0", "t", "y"})
FALSE = frozenset({"false", "no", "0", "0.0", "f", "n"})


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """The table at `path`; FileNotFoundError when the stage that makes it has not run."""
    return pd.read_parquet(path, columns=columns)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write the table; the same rows give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False, compression="zstd")


def to_columns(table: pd.DataFrame, schema: Schema) -> Columns:
    """The schema's features as typed arrays; a column that the table lacks is missing in every row.

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
    """One column in the feature's type, as `ml.schema.Columns` describes it."""
    match feature.type:
        case "numeric":
            numbers = pd.to_numeric(column, errors="coerce")
            _refuse_lost(column, numbers.isna(), feature)
            array = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
            if np.isinf(array).any():
                _refuse(column, np.isinf(array), feature)
            return array
        case "boolean":
            words = column.astype("string").str.strip().str.lower()
            known = words.isin(TRUE) | words.isin(FALSE)
            _refuse_lost(column, ~known, feature)
            return np.where(words.isin(TRUE), 1.0, np.where(words.isin(FALSE), 0.0, np.nan))
        case "datetime":
            return to_seconds(column, feature)
        case _:
            spelled: NDArray[np.object_] = as_text(column).to_numpy(dtype=object, copy=True)
            spelled[column.isna().to_numpy(dtype=bool)] = None
            return spelled


def as_text(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Values as a category is spelled: whole floats without `.0`, booleans as true and false."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.map({True: "true", False: "false"}).astype("string").astype(object)
    if pd.api.types.is_float_dtype(column.dtype):
        whole = column.dropna() % 1 == 0
        if whole.all():
            return column.astype("Int64").astype("string").astype(object)
    return column.astype("string").astype(object)


def to_seconds(column: "pd.Series[Any]", feature: Feature) -> NDArray[np.float64]:
    """Seconds since 1970 of the wall clock, or of UTC when the feature's times carry an offset."""
    moments = parse_times(column, utc=feature.utc)
    _refuse_lost(column, moments.isna(), feature)
    seconds = (moments - pd.Timestamp(0)) / pd.Timedelta("1s")
    return np.asarray(seconds, dtype=np.float64)


def parse_times(column: "pd.Series[Any]", *, utc: bool) -> "pd.Series[Any]":
    """Naive timestamps: of UTC when `utc`, else of the wall clock as written; NaT where a value can't be read."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return column
    moments = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=utc)
    return moments.dt.tz_localize(None) if utc else moments


def _refuse_lost(column: "pd.Series[Any]", lost: "pd.Series[Any]", feature: Feature) -> None:
    bad = (lost & column.notna()).to_numpy(dtype=bool)
    if bad.any():
        _refuse(column, bad, feature)


def _refuse(column: "pd.Series[Any]", bad: NDArray[np.bool_], feature: Feature) -> None:
    first = int(np.flatnonzero(bad)[0])
    raise SchemaError(
        f"column {feature.name!r} is {feature.type}, but {int(bad.sum())} of its values are not: "
        f"the first is {column.iloc[first]!r} in row {first} (declare another type in params.yaml, or mend the data)"
    )
