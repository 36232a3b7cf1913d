"""The feature views of params.yaml (`data.views`): reads their files, and joins their rows to the table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.data_params import DataParams
from ml.features.declared import views_of
from ml.features.offline import TIMESTAMP, Moments, join
from ml.features.views import EARLIEST, View, microseconds, spell_key
from ml.sources import table
from ml.sources.reading import Read, SourceError
from ml.tables import as_text, by_distinct, forms_of, holds_many, is_missing
from ml.time_layouts import AmbiguousTimesError, find_layout
from ml.values import UnreadableError, moment_of, time_zone

NO_TIME = EARLIEST
"""The moment of a row without a time: nothing was known then."""


def read_rows(data: DataParams, name: str) -> Read:
    """The rows of a declared view: its keys as texts, `event_timestamp` in microseconds, and its features.

    They are in order of time. Raises SourceError, one line, when the file can't be read or lacks something.
    """
    view, key = data.views[name], f"data.views.{name}"
    # The file is read as the table's is: what data.features declares of a column holds for the column here, too.
    try:
        found = table.read(data.model_copy(update={"uri": view.uri, "format": view.format, "csv": view.csv}))
    except SourceError as error:
        said = str(error)
        for part in ("uri", "format", "csv"):
            said = said.replace(f"data.{part}", f"{key}.{part}")
        raise SourceError(said) from None
    raw, assumed = found.table, list(found.assumed)
    for role, names in (("keys", view.keys), ("timestamp", (view.timestamp,)), ("features", view.features)):
        for column in names:
            if column not in raw:
                raise SourceError(
                    f"{key}.{role}: {view.uri} has no column {column!r}, only {', '.join(raw.columns)}: "
                    "correct the name in params.yaml or in the file"
                )
    keys = {column: _key(raw[column], f"{key}.keys: {view.uri}") for column in view.keys}
    where = f"{key}.timestamp: {view.uri}"
    times = moments(raw[view.timestamp], view.timestamp_format, data.timezone, where, f"{key}.timestamp_format")
    if (times == NO_TIME).any():
        row = int(np.flatnonzero(times == NO_TIME)[0])
        raise SourceError(f"{where} has no time in column {view.timestamp!r}, row {row}: add it, or drop the row")
    rows = pd.DataFrame(
        keys | {TIMESTAMP: times} | {column: _value(raw[column], f"{key}.features") for column in view.features}
    )
    if (unnamed := rows[list(view.keys)].isna().any(axis=1)).any():
        assumed.append(f"{view.uri}: {unnamed.sum()} rows without a key are left out")
        rows = rows[~unnamed]
    rows = rows.sort_values(TIMESTAMP, kind="stable")
    repeated = rows.duplicated([*view.keys, TIMESTAMP], keep="last")
    if repeated.any():
        assumed.append(f"{view.uri}: of rows with the same keys and time the last counts: {repeated.sum()} don't")
    return Read(rows[~repeated].reset_index(drop=True), tuple(assumed))


def joined(raw: pd.DataFrame, data: DataParams, rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The table with the features of each view as they were known when a row is predicted.

    Raises SourceError, one line, when the table lacks a key or has a column of the same name.
    """
    views = views_of(data)
    if views is None:
        return raw
    if views.time not in raw:
        raise SourceError(f"data.time: the table has no column {views.time!r}, which data.views needs")
    layout, zone = data.times(views.time)
    event = moments(raw[views.time], layout, zone, f"data.time: {data.uri}", data.format_key(views.time))
    known = np.where(event == NO_TIME, NO_TIME, event - views.horizon)
    parts = [raw]
    for view in views.views:
        _check_names(raw, view)
        keys = {name: _key(raw[name], f"data.views.{view.name}.keys: the table") for name in view.keys}
        entities = pd.DataFrame(keys, index=raw.index)
        parts.append(join(view, rows[view.name], entities, Moments(known, event, event)))
    return pd.concat(parts, axis=1)


def moments(
    column: "pd.Series[Any]", layout: str | None, zone: str | None, where: str, format_key: str
) -> NDArray[np.int64]:
    """Times as microseconds since 1970 in UTC, as the service reads those of requests; NO_TIME where missing.

    Times without an offset are of the zone, by default UTC. Raises SourceError naming a value that is no time.
    """
    absent = is_missing(column)
    column = column.mask(absent) if absent.any() else column
    if layout is None:
        try:
            found = find_layout(column.dropna().unique(), declared=True)
        except AmbiguousTimesError as error:
            layouts = " or ".join(f'"{each}"' for each in error.layouts)
            raise SourceError(f"{where}: {error}: declare {format_key} in params.yaml as {layouts}") from None
        layout = None if found == "iso" else found
    place = time_zone(zone or "UTC")

    def read(value: Any) -> object:
        try:
            return microseconds(moment_of(value, layout), place)
        except (UnreadableError, OverflowError):
            return None

    times = by_distinct(column, read, object)
    wrong = np.array([time is None for time in times], dtype=bool) & ~absent
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise SourceError(
            f"{where}: {column.iloc[row]!r} in column {column.name!r}, row {row}, is no time "
            f"(of {int(wrong.sum())} such values): correct it, or declare {format_key} in params.yaml"
        )
    return np.where(absent, NO_TIME, np.where(absent, 0, times).astype(np.int64))


def _check_names(raw: pd.DataFrame, view: View) -> None:
    for name in view.keys:
        if name not in raw:
            raise SourceError(
                f"data.views.{view.name}.keys: the table has no column {name!r}, only {', '.join(raw.columns)}: "
                "give the key the same name in the table and in the view's file"
            )
    for name in view.features:
        if name in raw:
            raise SourceError(
                f"data.views.{view.name}.features: the table has a column {name!r}, too: rename the column of the "
                "view's file, or remove the table's"
            )


def _key(column: "pd.Series[Any]", where: str) -> "pd.Series[Any]":
    """A column of keys as texts, None where missing."""
    if holds_many(column).any():
        raise SourceError(f"{where} has lists in column {column.name!r}, but a key is a single value")
    texts = by_distinct(column.mask(is_missing(column)), spell_key, object)
    return pd.Series(texts, index=column.index, dtype=object)


def _value(column: "pd.Series[Any]", where: str) -> "pd.Series[Any]":
    """A column of values as JSON can say them: numbers as float64, truth values, or texts."""
    if holds_many(column).any():
        raise SourceError(f"{where}: column {column.name!r} has lists, but a feature is a single value")
    if forms_of(column) == ("boolean",):
        return column.astype("boolean")
    if pd.api.types.is_numeric_dtype(column.dtype):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index)
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column.map(lambda time: time.isoformat(), na_action="ignore").astype(object)
    return as_text(column)
