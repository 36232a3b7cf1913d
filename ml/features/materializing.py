"""What every materialiser does: it writes batches of rows with its progress, and says how far it is."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, TypeVar

import pandas as pd
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from ml.features.offline import TIMESTAMP
from ml.features.store import Batch, ClaimedError, Clock, OnlineStore, Progress, Row
from ml.features.views import DAY, SECOND, Value, View

KEEP = DAY
"""How long rows are kept after they expired."""
HUNG = 900.0
"""Seconds without a new step after which a materialiser hangs. A step takes seconds, and tries for minutes at most."""
CLAIMED_PAUSE = 15.0
"""Seconds between two attempts to write while another materialiser has the store."""

T = TypeVar("T")


class Writer:
    """Writes steps into an online store; each is whole, and the next one goes on from it."""

    def __init__(self, store: OnlineStore, keep: int = KEEP) -> None:
        """Raises StoreError when the store can't be read."""
        self.progress = store.progress()
        self.keep = keep
        self._store = store

    def reload(self) -> None:
        """Go on from what another materialiser has written; raises StoreError."""
        self.progress = self._store.progress()

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


def when_free(step: Callable[[], T], reload: Callable[[], None], stopped: Event, log: logging.Logger) -> T | None:
    """What the step returns as soon as no other materialiser has the store; None if a signal comes before that.

    A materialiser that was killed has it for a minute, and a second one that runs has it at each of its steps. `reload`
    reads what the other has written. Raises whatever else the step raises.
    """
    said = False
    while not stopped.is_set():
        try:
            return step()
        except ClaimedError as error:
            if not said:
                log.warning("%s; trying again every %.0f seconds", error, CLAIMED_PAUSE)
            said = True
        stopped.wait(CLAIMED_PAUSE)
        reload()
    return None


class Metrics:
    """What Prometheus reads of a materialiser, and whether it is alive and ready."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now`: the present, in microseconds since 1970; a replay sets its clock when it begins."""
        self.now = now
        self._registry = CollectorRegistry()
        self._watermark = Gauge(
            "atlas_materializer_watermark_timestamp_seconds",
            "Everything that was known until then is in the feature store",
            registry=self._registry,
        )
        lag = Gauge("atlas_materializer_lag_seconds", "Time from the watermark to the present", registry=self._registry)
        self._written: int | None = None
        lag.set_function(
            lambda: float("nan") if self._written is None else max(0.0, (self.now() - self._written) / SECOND)
        )
        self.failures = Counter("atlas_materializer_failures", "Steps that failed", registry=self._registry)
        self._begun = time.monotonic()

    def begin(self) -> None:
        """Record that a step begins."""
        self._begun = time.monotonic()

    def written(self, progress: Progress) -> None:
        """Record a step that succeeded."""
        self._written = progress.watermark
        self._watermark.set(progress.watermark / SECOND)

    def answer(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET: /health/live fails when it hangs, /health/ready until the store is written."""
        match path:
            case "/metrics":
                return 200, generate_latest(self._registry)
            case "/health/live":
                waiting = time.monotonic() - self._begun
                return (200, b"alive\n") if waiting < HUNG else (503, b"no new step for %d seconds\n" % waiting)
            case "/health/ready":
                return (503, b"nothing is written yet\n") if self._written is None else (200, b"ready\n")
        return 404, b"/metrics, /health/live and /health/ready are here\n"

    def serve(self, port: int, address: str = "127.0.0.1") -> None:
        """Answer on a thread, by default only on the loopback address. Raises OSError when the port is in use."""
        metrics = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = metrics.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", CONTENT_TYPE_LATEST if self.path == "/metrics" else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing: Prometheus asks every few seconds."""

        Thread(target=ThreadingHTTPServer((address, port), Handler).serve_forever, daemon=True).start()
