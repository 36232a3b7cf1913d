"""Materialises the views of `data.views`: what their files say until now."""

import logging
from pathlib import Path, PurePosixPath
from threading import Event
from time import time_ns

import pandas as pd

from ml.data_params import DataParams
from ml.features.declared import views_of
from ml.features.materializing import Metrics, Writer, batch, when_free
from ml.features.store import OnlineStore, Progress, StoreError
from ml.features.views import EARLIEST, View
from ml.sources.reading import SourceError
from ml.sources.view_files import read_rows

INTERVAL = 60.0
"""Seconds between two steps of a materialiser that follows the clock."""


class FileMaterializer:
    """Writes the rows of the declared views' files into an online store, as the wall clock passes them."""

    def __init__(self, data: DataParams, store: OnlineStore, keep: int, log: logging.Logger) -> None:
        """Raises StoreError when the store can't be read."""
        views = views_of(data)
        self._views: tuple[View, ...] = () if views is None else views.views
        self._data, self._log, self._writer = data, log, Writer(store, keep)
        self._rows: dict[str, pd.DataFrame] = {}
        self._read: dict[str, tuple[int, ...] | None] = {}

    def advance(self, now: int) -> Progress:
        """Write what changed until `now`, in microseconds since 1970.

        A file that this process hasn't read yet, or that has changed, replaces all of its view's rows; of other files
        only the rows whose time has come since the last step are new. Raises SourceError or StoreError.
        """
        before = self._writer.progress
        batches, read = [], dict(self._read)
        for view in self._views:
            state = _state(self._data.views[view.name].uri)
            fresh = view.name not in read or state is None or state != read[view.name]
            if fresh:
                found = read_rows(self._data, view.name)
                for sentence in found.assumed if view.name not in read else ():
                    self._log.warning("assumed: %s", sentence)
                self._rows[view.name], read[view.name] = found.table, state
            oldest = EARLIEST if view.ttl is None else now - view.ttl - self._writer.keep - 1
            first = oldest if fresh or before is None else before.watermark
            batches.append(batch(view, self._rows[view.name], first, now))
        progress = self._writer.write(batches, now)
        self._read = read
        return progress

    def reload(self) -> None:
        """Go on from what another materialiser has written; raises StoreError."""
        self._writer.reload()
        self._read = {}

    def follow(self, metrics: Metrics, stopped: Event) -> None:
        """Go on with each minute until a signal ends it; a step that fails is tried again."""
        while not stopped.is_set():
            metrics.begin()
            try:
                progress = when_free(lambda: self.advance(wall_clock()), self.reload, stopped, self._log)
                if progress is not None:
                    metrics.written(progress)
            except (SourceError, StoreError) as error:
                metrics.failures.inc()
                self._log.error("%s", error)
            stopped.wait(INTERVAL)


def with_files_at(data: DataParams, address: str) -> DataParams:
    """The same views, with relative paths of files below this address instead of the working folder."""
    views = {
        name: view
        if "://" in view.uri or Path(view.uri).is_absolute()
        else view.model_copy(update={"uri": f"{address.rstrip('/')}/{PurePosixPath(view.uri)}"})
        for name, view in data.views.items()
    }
    return data.model_copy(update={"views": views})


def wall_clock() -> int:
    """Microseconds since 1970."""
    return time_ns() // 1000


def _state(uri: str) -> tuple[int, ...] | None:
    """What changes when a local file, or one in a folder, is written; None for other addresses, which are read anew."""
    if "://" in uri or not (path := Path(uri)).exists():
        return None
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple(
        number for each in found for number in (each.stat().st_mtime_ns, each.stat().st_size, each.stat().st_ino)
    )
