"""The processed rows, as all later stages read them: typed columns, the target, the time of each row."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.files import PROCESSED
from ml.params import Params
from ml.schema import Columns, Document, Feature, Schema
from ml.tables import read_parquet, read_times, to_columns

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Remarks(Document):
    """What a reader should know about the data, a sentence each; reports/data_warnings.json."""

    assumed: tuple[str, ...] = ()
    """What was inferred and could be otherwise, with the param that settles it."""
    warnings: tuple[str, ...] = ()
    """What makes figures look better than they are, or a column useless: leaks, names of rows."""


class Summary(Document):
    """A summary of preprocessing; data/processed/summary.json."""

    rows: dict[str, int]
    """Number of rows by part."""
    borders: dict[str, tuple[str, str]] = {}
    """First and last time by part, if rows have a time."""
    without_target: int
    dropped_columns: dict[str, str]
    """Name -> why it is not a feature."""
    remarks: Remarks = Remarks()


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows, in time order if they have a time."""

    columns: Columns
    target: NDArray[np.float64]
    seconds: NDArray[np.float64] | None
    """The time of each row, in seconds since 1970; None if the data has no time."""
    weights: NDArray[np.float64] | None = None
    """`data.weight`; None if all rows count the same."""
    groups: NDArray[np.generic] | None = None
    """`split.group` of each row, as text; None if rows have no groups."""

    def __len__(self) -> int:
        return len(self.target)

    def take(self, chosen: NDArray[np.int64]) -> "Rows":
        """The rows at these positions."""
        return Rows(
            {name: values[chosen] for name, values in self.columns.items()},
            self.target[chosen],
            None if self.seconds is None else self.seconds[chosen],
            None if self.weights is None else self.weights[chosen],
            None if self.groups is None else self.groups[chosen],
        )


def read_rows(part: str, schema: Schema, params: Params) -> Rows:
    """The processed rows of a part."""
    return rows_of(read_parquet(PROCESSED / f"{part}.parquet"), schema, params)


def read_target(part: str, schema: Schema) -> NDArray[np.float64]:
    """The target of a part's processed rows, without reading their other columns."""
    return target_of(read_parquet(PROCESSED / f"{part}.parquet", [schema.target]), schema)


def rows_of(table: pd.DataFrame, schema: Schema, params: Params) -> Rows:
    """Processed rows, typed.

    Raises SchemaError when a column doesn't have the schema's type.
    """
    weight = params.data.weight
    return Rows(
        to_columns(table, schema),
        target_of(table, schema),
        seconds_of(table, params.data.time),
        None if weight is None else np.asarray(table[weight], dtype=np.float64),
        groups_of(table, params.split.group),
    )


def target_of(table: pd.DataFrame, schema: Schema) -> NDArray[np.float64]:
    """The target as class indices, or numbers for a regression; float64, shape (n,)."""
    if schema.task == "regression":
        return np.asarray(table[schema.target], dtype=np.float64)
    index = {label: float(place) for place, label in enumerate(schema.classes)}
    return np.asarray(table[schema.target].map(index), dtype=np.float64)


def seconds_of(table: pd.DataFrame, time_column: str | None) -> NDArray[np.float64] | None:
    """The time of each row, in seconds since 1970; None without a time column."""
    if time_column is None:
        return None
    # Preprocessing has written timestamps, with the zone UTC if they had offsets.
    column = table[time_column]
    return read_times(
        column, Feature(name=time_column, type="datetime", utc=column.dtype.kind == "M" and column.dt.tz is not None)
    )


def groups_of(table: pd.DataFrame, column: str | None) -> NDArray[np.generic] | None:
    """The group of each row, as text; None without `split.group`."""
    return None if column is None else table[column].astype(str).to_numpy(dtype=str)


def concatenate(*many: Rows) -> Rows:
    """All rows of the given parts, in this order."""

    def joined(arrays: list[NDArray[Any] | None]) -> Any:
        known = [array for array in arrays if array is not None]
        return np.concatenate(known) if len(known) == len(arrays) else None

    return Rows(
        {name: np.concatenate([rows.columns[name] for rows in many]) for name in many[0].columns},
        np.concatenate([rows.target for rows in many]),
        joined([rows.seconds for rows in many]),
        joined([rows.weights for rows in many]),
        joined([rows.groups for rows in many]),
    )
