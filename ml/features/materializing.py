"""What every materialiser does: it writes batches of rows with its progress, and says how far it is."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from ml.features.offline import TIMESTAMP
from ml.features.store import Batch, Clock, OnlineStore, Progress, Row
from ml.features.views import DAY, SECOND, Value, View

KEEP = DAY
"""How long rows are kept after they expired."""


class Writer:
    """Writes steps into an online store; each is whole, and the next one goes on from it."""

    def __init__(self, store: OnlineStore, keep: int = KEEP) -> None:
        """Raises StoreError when the store can't be read."""
        self.progress = store.progress()
        self.keep = keep
        self._store = store

    def write(self, batches: Sequence[Batch], now: int, clock: Clock | None = None) -> Progress:
        """Write what changed until `now`; raises StoreError, and then nothing is written."""
        old = self.progress
        fresh = Progress(now, old.revision + 1, clock or old.clock) if old else Progress(now, 1, clock)
        self._store.write(batches, fresh, self.keep)
        self.progress = fresh
        return fresh


def batch(view: View, rows: pd.DataFrame, first: int, last: int) -> Batch:
    """The rows of a view with an event timestamp after `first` and until `last`."""
    return Batch(view.name, first, last, _rows(view, rows[(rows[TIMESTAMP] > first) & (rows[TIMESTAMP] <= last)]))


def _rows(view: View, rows: pd.DataFrame) -> Iterator[tuple[tuple[Value, ...], Row]]:
    def plain(name: str) -> list[Any]:
        column = rows[name].astype(object)
        return column.where(column.notna(), None).tolist()

    values: Any = zip(*map(plain, view.values), strict=True)
    keys: Any = zip(*map(plain, view.keys), strict=True) if view.keys else [()] * len(rows)
    for key, timestamp, row in zip(keys, rows[TIMESTAMP].tolist(), values, strict=True):
        yield key, Row(timestamp, row)


class Metrics:
    """What Prometheus reads of a materialiser."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._watermark = Gauge(
            "atlas_materializer_watermark_timestamp_seconds",
            "Everything that was known until then is in the feature store",
            registry=self._registry,
        )
        lag = Gauge("atlas_materializer_lag_seconds", "Time from the watermark to the present", registry=self._registry)
        self._written = 0
        lag.set_function(lambda: max(0.0, (now() - self._written) / SECOND))
        self.failures = Counter("atlas_materializer_failures", "Steps that failed", registry=self._registry)

    def written(self, progress: Progress) -> None:
        """Record a step that succeeded."""
        self._written = progress.watermark
        self._watermark.set(progress.watermark / SECOND)

    def serve(self, port: int) -> None:
        """Serve /metrics on the loopback address, on a thread."""
        start_http_server(port, addr="127.0.0.1", registry=self._registry)
