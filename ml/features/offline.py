"""The point-in-time join: each row of a training table gets what its views' rows said then."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.features.views import Moment, View

TIMESTAMP = "event_timestamp"


class Moments(NamedTuple):
    """A Moment for each row, as arrays of shape (n,)."""

    known: NDArray[np.int64]
    event: NDArray[np.int64]
    clock: NDArray[np.int64]


def join(view: View, rows: pd.DataFrame, entities: pd.DataFrame, moments: Moments) -> pd.DataFrame:
    """The view's features for each row of `entities`, which has the view's keys as columns.

    `rows`: the keys, `event_timestamp`, and the view's values. Of an entity's rows with the same event timestamp the
    last one counts.
    """
    found = latest(view, rows, entities, moments.known if view.at == "known" else moments.event)
    places = np.flatnonzero(found >= 0)
    stored = rows[list(view.values)].take(found[places])
    if view.transform == "plain":
        features = stored
    else:
        values = zip(*(_values(stored[name]) for name in view.values), strict=True)
        times = map(Moment, *(column[places].tolist() for column in moments))
        made = [view.features_of(row, moment) for row, moment in zip(values, times, strict=True)]
        features = pd.DataFrame(dict(zip(view.features, zip(*made, strict=True), strict=True)) if made else {})
    features = features.reindex(columns=list(view.features)).set_axis(places, axis=0)
    return features.reindex(range(len(found))).set_axis(entities.index, axis=0)


def latest(view: View, rows: pd.DataFrame, entities: pd.DataFrame, asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each entity the position of its newest row that isn't later than asked nor older than the ttl, or -1."""
    codes = _codes(view, rows, entities)
    own, other = codes[: len(rows)], codes[len(rows) :]
    stamps = rows[TIMESTAMP].to_numpy(dtype=np.int64)
    order = np.lexsort((stamps, own))
    known = pd.DataFrame({"code": own[order], "stamp": stamps[order], "row": order})
    wanted = pd.DataFrame({"code": other, "stamp": asked}).assign(place=np.arange(len(asked)))
    joined = pd.merge_asof(
        wanted.sort_values("stamp", kind="stable"),
        known.assign(found=known["stamp"]).sort_values("stamp", kind="stable"),
        on="stamp",
        by="code",
    )
    row = joined["row"].fillna(-1).to_numpy(dtype=np.int64)
    if view.ttl is not None:
        row = np.where(joined["stamp"] - joined["found"] <= view.ttl, row, -1)
    positions = np.full(len(asked), -1, dtype=np.int64)
    positions[joined["place"].to_numpy()] = row
    return positions


def _codes(view: View, rows: pd.DataFrame, entities: pd.DataFrame) -> NDArray[np.int64]:
    """A number for each entity of the rows, then for each of the questions; -2 - place where a key is missing."""
    if not view.keys:
        return np.zeros(len(rows) + len(entities), dtype=np.int64)
    keys = pd.concat([rows[list(view.keys)], entities[list(view.keys)]], ignore_index=True)
    codes = keys.groupby(list(view.keys), sort=False, dropna=True).ngroup().fillna(-1).to_numpy(dtype=np.int64)
    return np.where(codes < 0, -2 - np.arange(len(codes)), codes)


def _values(column: pd.Series) -> list[Any]:
    """A column's values as Python's own, None where missing."""
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
