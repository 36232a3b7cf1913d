"""The online store: the rows of feature views by entity and time, which a materialiser writes and the service reads.

Rows belong to one set of views (`Views.fingerprint`), so that a service and a materialiser of other views find nothing
of theirs in the same store, and a new model can be rolled out beside the old one.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from ml.features.views import Value, Views


class StoreError(OSError):
    """The online store can't be used; the message names the cause and the remedy."""


class ClaimedError(StoreError):
    """Another materialiser writes to the store, or has written to it."""


class Row(NamedTuple):
    """What is known of an entity from a time on."""

    timestamp: int
    """Event timestamp, in microseconds since 1970."""
    values: Sequence[Value]
    """In the order of `View.values`."""


class Span(NamedTuple):
    """The rows of an entity between two times."""

    view: str
    keys: tuple[Value, ...]
    """The entity, in the order of `View.keys`."""
    since: int
    until: int
    """The first and the last event timestamp (both included)."""


class Clock(NamedTuple):
    """A replay's clock: simulated time passes from a start on, at a certain speed."""

    simulated: int
    """Microseconds since 1970, when it was `real`."""
    real: int
    """Microseconds since 1970 by the wall clock."""
    speed: float
    """Simulated seconds per second; 0: it stands still."""

    def at(self, real: int) -> int:
        """The simulated time when it is `real`."""
        return self.simulated + int((real - self.real) * self.speed)


class Progress(NamedTuple):
    """How far the materialiser has come."""

    watermark: int
    """Everything that was known until then is in the store; microseconds since 1970."""
    revision: int
    """Counted up with each write."""
    clock: Clock | None
    """None: the wall clock."""


class Batch(NamedTuple):
    """All rows of a view with an event timestamp after `since` and until `until`; they replace the store's."""

    view: str
    since: int
    until: int
    rows: Iterable[tuple[tuple[Value, ...], Row]]
    """Each with the keys of its entity."""


class OnlineStore(Protocol):
    """The rows of one set of views. All methods raise StoreError when the store can't be used."""

    round_trip: float
    """Seconds that a read may take longer than one of a file, for a request that waits for it."""

    def progress(self) -> Progress | None:
        """How far the materialiser has come; None if there is nothing of these views."""

    def read(self, asked: Sequence[Span]) -> list[list[Row]]:
        """The rows of each span, in order of time."""

    def write(self, batches: Sequence[Batch], progress: Progress, keep: int) -> None:
        """Replace rows, and then progress; drop rows that expired more than `keep` microseconds before the watermark.

        If it ends early, the same rows written again give the same store.
        """


_TABLES = """
CREATE TABLE IF NOT EXISTS feature_rows (
    view TEXT NOT NULL, entity TEXT NOT NULL, event_timestamp INTEGER NOT NULL, row TEXT NOT NULL,
    PRIMARY KEY (view, entity, event_timestamp)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS feature_rows_by_time ON feature_rows (view, event_timestamp);
CREATE TABLE IF NOT EXISTS progress (
    views TEXT PRIMARY KEY, watermark INTEGER NOT NULL, revision INTEGER NOT NULL, clock TEXT
) WITHOUT ROWID;
"""


class SqliteStore:
    """An online store in a file, with SQLite's write-ahead log: readers and the writer don't wait for each other.

    Safe to use from several threads; open it in the process that uses it.
    """

    round_trip = 0.0

    def __init__(self, path: Path, views: Views, *, write: bool = False, busy: float = 5.0) -> None:
        """`write`: create the file if it doesn't exist; `busy`: seconds to wait for a lock of another process.

        Raises StoreError when the file can't be opened.
        """
        self._path, self._write, self._busy = path, write, busy
        self._fingerprint = views.fingerprint
        self._ttl = {view.name: view.ttl for view in views.views}
        self._local = threading.local()
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._said():
                self._connection().executescript(_TABLES)

    def progress(self) -> Progress | None:
        """As OnlineStore.progress."""
        with self._said():
            found = (
                self._connection()
                .execute("SELECT watermark, revision, clock FROM progress WHERE views = ?", (self._fingerprint,))
                .fetchone()
            )
        if found is None:
            return None
        return Progress(found[0], found[1], Clock(*json.loads(found[2])) if found[2] else None)

    def read(self, asked: Sequence[Span]) -> list[list[Row]]:
        """As OnlineStore.read."""
        with self._said():
            connection = self._connection()
            return [
                [
                    Row(timestamp, msgspec.json.decode(row))
                    for timestamp, row in connection.execute(
                        "SELECT event_timestamp, row FROM feature_rows"
                        " WHERE view = ? AND entity = ? AND event_timestamp BETWEEN ? AND ? ORDER BY event_timestamp",
                        (self._name(span.view), as_json(span.keys), span.since, span.until),
                    )
                ]
                for span in asked
            ]

    def write(self, batches: Sequence[Batch], progress: Progress, keep: int) -> None:
        """As OnlineStore.write, all or nothing."""
        with self._said():
            connection = self._connection()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for batch in batches:
                    name = self._name(batch.view)
                    between = "DELETE FROM feature_rows WHERE view = ? AND event_timestamp > ? AND event_timestamp <= ?"
                    connection.execute(between, (name, batch.since, batch.until))
                    connection.executemany(
                        "INSERT OR REPLACE INTO feature_rows VALUES (?, ?, ?, ?)",
                        ((name, as_json(keys), row.timestamp, as_json(row.values)) for keys, row in batch.rows),
                    )
                for view, ttl in self._ttl.items():
                    if ttl is not None:
                        expired = "DELETE FROM feature_rows WHERE view = ? AND event_timestamp < ?"
                        connection.execute(expired, (self._name(view), progress.watermark - ttl - keep))
                connection.execute(
                    "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?)",
                    (
                        self._fingerprint,
                        progress.watermark,
                        progress.revision,
                        json.dumps(progress.clock) if progress.clock else None,
                    ),
                )

    def close(self) -> None:
        """Close the connection of this thread."""
        if (connection := getattr(self._local, "connection", None)) is not None:
            connection.close()
            self._local.connection = None

    def _name(self, view: str) -> str:
        return f"{self._fingerprint}/{view}"

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            mode = "rwc" if self._write else "ro"
            address = f"{self._path.absolute().as_uri()}?mode={mode}"
            connection = sqlite3.connect(address, uri=True, timeout=self._busy, isolation_level=None)
            if self._write:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
            self._local.connection = connection
        return connection

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Replace SQLite's errors by one that names the file and the remedy; the next call opens the file anew."""
        try:
            yield
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self.close()
            raise StoreError(f"the feature store {self._path} can't be used ({error}): {_remedy(error)}") from None


def _remedy(error: sqlite3.Error) -> str:
    if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "delete the file, and materialise again"
    if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "another process holds it; try again"
    return "is the materialiser running (`python -m ml.materialize`), and may this user read the folder?"


def as_json(value: Any) -> str:
    """Rows, or parts of them, as JSON, which keeps every bit of a number."""
    return _ENCODER.encode(value).decode()


_ENCODER = msgspec.json.Encoder()
