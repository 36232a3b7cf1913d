"""What is looked up for a request: what training saw, never newer than it may be, and an answer in any trouble."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml.features import flight_views
from ml.features.flights import Events
from ml.features.store import Batch, Clock, OnlineStore, Progress, Row, Span, SqliteStore, StoreError
from ml.features.views import DAY, HOUR, MINUTE, SECOND, View, Views
from ml.materialize import Materializer
from service import feature_memory
from service.lookup import Lookup
from tests.infra.support.waiting import eventually
from tests.ml.features.conftest import HORIZON, NOON, SHOP_IN_UTC, events, table, tables, timed

__all__ = ["events", "table", "tables", "timed"]

VIEWS = flight_views.views(HORIZON)
FEATURES = tuple(name for view in VIEWS.views for name in view.features)

SHOP = SHOP_IN_UTC.model_copy(update={"timezone": "Europe/Berlin"})
NINE = int(pd.Timestamp("2024-03-01T09:00+01:00").timestamp()) * SECOND
REQUEST = {"bought": "2024-03-01T10:00", "shop": "north", "person": "Ann"}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_memory, "REFRESH", 0.02)


def write(store: OnlineStore, rows: Sequence[tuple[str, str, int, Sequence[Any]]], progress: Progress) -> None:
    batches: dict[tuple[str, int], list[tuple[tuple[str], Row]]] = {}
    for view, key, at, values in rows:
        batches.setdefault((view, at), []).append(((key,), Row(at, values)))
    store.write([Batch(view, at - 1, at, made) for (view, at), made in batches.items()], progress, keep=1000 * DAY)


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """Two shops and a person; the materialiser has come to nine o'clock."""
    made = SqliteStore(tmp_path / "features.db", SHOP, write=True)
    rows: list[tuple[str, str, int, list[Any]]] = [
        ("shop", "north", NINE - 3 * HOUR, [1.0, "calm"]),
        ("shop", "north", NINE - 10 * MINUTE, [7.0, None]),
        ("shop", "south", NINE - 3 * HOUR, [2.0, "calm"]),
        ("person", "Ann", 0, [41.5]),
    ]
    write(made, rows, Progress(NINE, 1, None))
    return made


@pytest.fixture
def make() -> Iterator[Callable[..., Lookup]]:
    made: list[Lookup] = []

    def start(store: OnlineStore, now: int = NINE, views: Views = SHOP, deadline: float = 30) -> Lookup:
        """Machines are noisy: only the test of the deadline has a short one."""
        names = ("bought", *(name for view in views.views for name in view.features))
        made.append(Lookup(views, names, store, deadline=deadline, real=lambda: now))
        return made[-1]

    yield start
    for each in made:
        each.memory.close()


until = partial(eventually, pause=0.01)


@pytest.mark.slow
def test_what_is_looked_up_is_what_training_saw(
    events: Events, table: pd.DataFrame, timed: pd.DataFrame, tmp_path: Path, make: Callable[..., Lookup]
) -> None:
    """All flights of two days with a storm: every value of every view, bit for bit."""
    store = SqliteStore(tmp_path / "features.db", VIEWS, write=True)
    materializer = Materializer(store, HORIZON, keep=1000 * DAY)
    for now in range(NOON - DAY, NOON + DAY, 5 * HOUR):
        materializer.advance(events, now)
    days = timed["scheduled"].between("2013-02-08T03:00", "2013-02-09T10:00")
    found = make(store, NOON + DAY, VIEWS)
    compared = 0
    for asked, (_, row) in zip(requests(timed[days]), table[days].iterrows(), strict=True):
        looked_up = found.find(asked)
        assert looked_up.trouble is None
        for name in FEATURES:
            expected = None if pd.isna(row[name]) else row[name]
            assert looked_up.values.get(name) == expected, (asked, name)
            compared += expected is not None
    assert compared > 10_000


def requests(of: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in of[["carrier", "origin", "dest", "tailnum", "local"]].to_dict("records"):
        moment = pd.Timestamp(row.pop("local"))
        yield {"scheduled_departure": moment.isoformat(), **{str(k): v for k, v in row.items() if not pd.isna(v)}}


def test_values_ages_and_what_was_sent(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    found = make(store).find({**REQUEST, "mood": "angry"})
    assert found.sent == ["bought", "mood"]
    assert found.values == {"queue": 7.0, "age": 41.5}
    assert found.ages == {"queue": 600.0, "age": None}
    assert found.trouble is None


def test_a_feature_that_the_model_doesnt_have_is_left_out(store: SqliteStore) -> None:
    """Training drops columns, such as those that are always the same."""
    found = Lookup(SHOP, ("bought", "queue"), store, deadline=30, real=lambda: NINE)
    assert found.find(REQUEST).values == {"queue": 7.0}
    found.memory.close()


def test_of_two_views_with_a_feature_the_first_that_has_it_counts(tmp_path: Path, make: Callable[..., Lookup]) -> None:
    first, second = (View(name=name, keys=("shop",), ttl=None, values=("x",), features=("x",)) for name in "ab")
    views = SHOP.model_copy(update={"views": (first, second)})
    store = SqliteStore(tmp_path / "two.db", views, write=True)
    write(
        store, [("a", "north", 0, [1.0]), ("b", "north", 0, [2.0]), ("b", "south", 0, [3.0])], Progress(NINE, 1, None)
    )
    found = make(store, views=views)
    assert (found.find(REQUEST).values, found.find({**REQUEST, "shop": "south"}).values) == ({"x": 1.0}, {"x": 3.0})


def test_what_the_caller_sends_wins(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    found = make(store).find({**REQUEST, "queue": 0, "age": None})
    assert "queue" not in found.values
    assert found.values["age"] == 41.5


def test_a_value_older_than_its_ttl_is_missing(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    found = make(store).find({**REQUEST, "shop": "south"})
    assert found.values == {"age": 41.5}
    assert found.trouble is None
    at_its_end = {**REQUEST, "shop": "south", "bought": "2024-03-01T09:00"}
    assert make(store).find(at_its_end).values["queue"] == 2.0
    assert "queue" not in make(store).find(at_its_end | {"bought": "2024-03-01T09:00:00.000001"}).values


def test_rows_of_the_future_change_nothing(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    """Clocks differ: a row may be newer than the service's present."""
    write(store, [("shop", "north", NINE + 1, [99.0, "wild"])], Progress(NINE + HOUR, 2, None))
    assert make(store).find(REQUEST).values["queue"] == 7.0
    later = make(store, NINE + DAY).find({**REQUEST, "bought": "2024-03-01T10:00:00.000001"})
    assert later.values["queue"] == 99.0


def test_an_early_request_knows_what_is_known_now(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    found = make(store, NINE - HOUR).find({**REQUEST, "bought": "2024-03-01T20:00"})
    assert found.values == {"queue": 1.0, "mood": "calm", "age": 41.5}


@pytest.mark.parametrize(
    "given", [{"shop": "unknown"}, {"shop": None}, {"shop": ["north"]}, {"shop": ""}, {"shop": "nor\x00th\ud800"}]
)
def test_a_key_that_was_never_seen(store: SqliteStore, make: Callable[..., Lookup], given: dict[str, Any]) -> None:
    found = make(store).find({**REQUEST, **given})
    assert found.values == {"age": 41.5}
    assert found.trouble is None


@pytest.mark.parametrize("shop", [" north ", "north"])
def test_keys_are_spelled_as_categories_are(store: SqliteStore, make: Callable[..., Lookup], shop: str) -> None:
    assert make(store).find({**REQUEST, "shop": shop}).values["queue"] == 7.0


@pytest.mark.parametrize(
    "time", [None, 5, True, "soon", "2024-03-01T25:00", "0001-01-01T00:00", ["2024-03-01"], {}, ""]
)
def test_what_is_no_time_finds_nothing(store: SqliteStore, make: Callable[..., Lookup], time: Any) -> None:
    assert "queue" not in make(store).find({**REQUEST, "bought": time}).values


@pytest.mark.parametrize("time", ["9999-12-31T23:59", "2024-03-31T02:30", "2024-10-27T02:30", "2024-03-01"])
def test_strange_times_are_times(store: SqliteStore, make: Callable[..., Lookup], time: str) -> None:
    """The last minute of all, one that a clock change skips, one that is there twice, a day."""
    assert make(store).find({**REQUEST, "bought": time}).values["age"] == 41.5


def test_times_with_an_offset_are_the_same_moment(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    assert make(store).find({**REQUEST, "bought": "2024-03-01T09:00:00Z"}).values["queue"] == 7.0


def test_what_is_written_is_seen_soon(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    found = make(store, NINE + HOUR)
    assert found.find(REQUEST).values["queue"] == 7.0
    assert found.memory.lag == 3600
    write(store, [("shop", "north", NINE - MINUTE, [3.0, "calm"])], Progress(NINE + HOUR, 2, None))
    until(lambda: found.find(REQUEST).values["queue"] == 3.0)
    assert found.memory.lag == 0


def test_chunks_that_nobody_uses_are_forgotten(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    found = make(store)
    found.find(REQUEST)
    assert len(found.memory.chunks) == 2
    for revision in (2, 3, 4):
        write(store, [], Progress(NINE, revision, None))
        until(
            partial(
                lambda wanted: found.memory.progress is not None and found.memory.progress.revision == wanted, revision
            )
        )
    until(lambda: not found.memory.chunks)
    assert found.find(REQUEST).values["queue"] == 7.0


def test_invented_keys_take_bounded_memory(
    store: SqliteStore, make: Callable[..., Lookup], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_memory, "MOST_ROWS", 100)
    found = make(store)
    for number in range(200):
        found.find({**REQUEST, "person": f"P{number}"})
    assert len(found.memory.chunks) <= 100
    assert found.memory.rows == sum(1 + len(chunk.rows) for chunk in found.memory.chunks.values()) <= 100
    assert found.find(REQUEST).values["age"] == 41.5


def test_a_late_materialiser_makes_what_changes_missing(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    found = make(store, NINE + HOUR).find({**REQUEST, "bought": "2024-03-01T10:11"})
    assert found.values == {"age": 41.5}
    assert found.trouble == "late"
    assert make(store, NINE + HOUR).find({**REQUEST, "bought": "2024-03-01T10:10"}).trouble is None


def test_a_replay_has_its_own_present(store: SqliteStore, make: Callable[..., Lookup]) -> None:
    write(store, [], Progress(NINE, 2, Clock(simulated=NINE, real=5 * DAY, speed=60.0)))
    found = make(store, 5 * DAY + MINUTE)
    assert found.memory.now == NINE + HOUR


class Broken:
    """A store whose answers a test decides."""

    round_trip = 0.0

    def __init__(self, store: OnlineStore) -> None:
        self.store, self.error, self.wait = store, False, threading.Event()
        self.wait.set()
        self.reads = self.looks = 0

    def progress(self) -> Progress | None:
        self.looks += 1
        if self.error:
            raise StoreError("the disk is gone")
        return self.store.progress()

    def read(self, asked: Sequence[Span]) -> list[list[Row]]:
        self.reads += 1
        self.wait.wait(30)
        if self.error:
            raise StoreError("the disk is gone")
        return self.store.read(asked)

    def write(self, batches: Sequence[Batch], progress: Progress, keep: int) -> None:
        raise NotImplementedError


def test_a_slow_store_costs_a_request_no_more_than_the_deadline(
    store: SqliteStore, make: Callable[..., Lookup]
) -> None:
    slow = Broken(store)
    slow.wait.clear()
    found = make(slow, deadline=0.005)
    first = found.find(REQUEST)  # ends, although the store doesn't
    assert (first.values, first.trouble) == ({}, "slow")
    slow.wait.set()
    until(lambda: len(found.memory.chunks) == 2)
    assert found.find(REQUEST).values["queue"] == 7.0  # what came late is there for the next request
    assert found.find(REQUEST).trouble is None


def test_a_store_that_fails_is_said_once_and_found_again(
    store: SqliteStore, make: Callable[..., Lookup], caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken(store)
    found = make(broken)
    assert found.find(REQUEST).trouble is None
    broken.error = True
    until(lambda: found.memory.trouble == "down")
    in_memory = found.find(REQUEST)
    assert (in_memory.values["queue"], in_memory.trouble) == (7.0, "down")
    reads = broken.reads
    other = found.find({**REQUEST, "person": "Bob"})
    assert "age" not in other.values
    assert broken.reads == reads  # a store that is known to be down isn't asked again by each request
    looks = broken.looks
    until(lambda: broken.looks > looks + 3)
    assert [record.message for record in caplog.records].count("features can't be looked up") == 1
    broken.error = False
    until(lambda: found.find(REQUEST).trouble is None)


def test_an_empty_store(tmp_path: Path, make: Callable[..., Lookup]) -> None:
    empty = SqliteStore(tmp_path / "empty.db", SHOP, write=True)
    found = make(empty)
    assert found.find(REQUEST).trouble == "empty"
    assert found.memory.lag is None
    write(empty, [("person", "Ann", 0, [3.0])], Progress(NINE, 1, None))
    until(lambda: found.find(REQUEST).values == {"age": 3.0})


def test_a_store_of_other_views_is_empty(store: SqliteStore, tmp_path: Path, make: Callable[..., Lookup]) -> None:
    other = SHOP.model_copy(update={"horizon": 2 * HOUR})
    assert make(SqliteStore(tmp_path / "features.db", other), views=other).find(REQUEST).trouble == "empty"
    assert make(store).find(REQUEST).trouble is None


def test_a_file_that_is_gone_or_damaged(tmp_path: Path, make: Callable[..., Lookup]) -> None:
    path = tmp_path / "features.db"
    found = make(SqliteStore(path, SHOP))
    assert found.find(REQUEST).trouble == "down"
    path.write_bytes(b"no database" * 1000)
    assert found.find(REQUEST).trouble == "down"
    path.unlink()
    write(SqliteStore(path, SHOP, write=True), [("person", "Ann", 0, [3.0])], Progress(NINE, 1, None))
    until(lambda: found.find(REQUEST).values == {"age": 3.0})


def test_a_locked_file_doesnt_stop_readers(store: SqliteStore, tmp_path: Path, make: Callable[..., Lookup]) -> None:
    writer = sqlite3.connect(tmp_path / "features.db", isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    try:
        assert make(SqliteStore(tmp_path / "features.db", SHOP)).find(REQUEST).values["queue"] == 7.0
    finally:
        writer.execute("ROLLBACK")
        writer.close()


def test_numbers_keep_every_bit(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bits.db", SHOP, write=True)
    numbers = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3]
    write(store, [("person", str(n), 0, [number]) for n, number in enumerate(numbers)], Progress(NINE, 1, None))
    rows = store.read([Span("person", (str(n),), 0, 0) for n in range(len(numbers))])
    assert [row.values[0] for [row] in rows] == numbers
    assert str(rows[3][0].values[0]) == "-0.0"
