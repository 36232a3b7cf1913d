"""Rows of feature views from changes: what an event adds to an entity's sums at one time, and takes away later."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.features.offline import TIMESTAMP
from ml.features.views import LATEST


def sums(
    keys: pd.DataFrame, start: NDArray[np.int64], stop: NDArray[np.int64], amounts: Mapping[str, NDArray[np.float64]]
) -> pd.DataFrame:
    """Rows with the sums of `amounts` by entity; each amount, of shape (n,), counts from `start` until before `stop`.

    An entity gets a row at each time at which one of its sums may change. Amounts are whole numbers, so that sums are
    exact in any order.
    """
    use = start < stop
    kept = keys[use]
    both = pd.concat([kept, kept], ignore_index=True)
    both[TIMESTAMP] = np.concatenate([start[use], stop[use]])
    for name, amount in amounts.items():
        both[name] = np.concatenate([amount[use], -amount[use]])
    by = [*keys.columns, TIMESTAMP]
    changes = both.groupby(by, sort=True)[[*amounts]].sum().reset_index()
    if keys.shape[1]:
        changes[[*amounts]] = changes.groupby([*keys.columns], sort=False)[[*amounts]].cumsum()
    else:
        changes[[*amounts]] = changes[[*amounts]].cumsum()
    return changes


def newest(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The rows in order of time; of an entity's rows with the same event timestamp only the last one."""
    ordered = rows.sort_values(TIMESTAMP, kind="stable")
    return ordered.drop_duplicates([*keys, TIMESTAMP], keep="last").reset_index(drop=True)


def versions(reports: pd.DataFrame, of: str) -> pd.DataFrame:
    """What was reported of each `of`, in order of `known`, with `until`: when the next report of it became known.

    Reports may be given in any order and several times. Of two that became known at the same time, the one with the
    larger values counts.
    """
    ordered = reports.sort_values([of, "known", *reports.columns.difference([of, "known"])], kind="stable")
    ordered = ordered.drop_duplicates([of, "known"], keep="last").reset_index(drop=True)
    until = ordered.groupby(of, sort=False)["known"].shift(-1, fill_value=LATEST)
    return ordered.assign(until=until.astype(np.int64))
