"""Finds events of a group within a time window, for many questions at once."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def windows(
    group: pd.Series, time: pd.Series, asked_group: pd.Series, asked_time: pd.Series, window: np.timedelta64
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions [start, stop), in (group, time) order, of the events with asked_time - window < time <= asked_time."""
    names = np.unique(np.concatenate([group.to_numpy(dtype=str), asked_group.to_numpy(dtype=str)]))
    epoch = min(time.min(), asked_time.min()) - pd.Timedelta(window)
    span = int((max(time.max(), asked_time.max()) - epoch) / pd.Timedelta("1s")) + 1

    def key(groups: pd.Series, times: pd.Series) -> NDArray[np.int64]:
        seconds = ((times - epoch) // pd.Timedelta("1s")).to_numpy(dtype=np.int64)
        return np.searchsorted(names, groups.to_numpy(dtype=str)) * span + seconds

    events = np.sort(key(group, time))
    asked = key(asked_group, asked_time)
    length = int(window / np.timedelta64(1, "s"))
    return np.searchsorted(events, asked - length, side="right"), np.searchsorted(events, asked, side="right")


def by_group(group: pd.Series, time: pd.Series, values: pd.Series) -> NDArray[np.float64]:
    """The values in (group, time) order."""
    return values.to_numpy()[np.lexsort((time.to_numpy(), group.to_numpy(dtype=str)))]
