"""The online store has what the views' definitions say, however and whenever the materialiser got the events."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from ml.features import flight_views, flights, materializing
from ml.features.flights import REPORTS, Events
from ml.features.materializing import Metrics
from ml.features.offline import TIMESTAMP
from ml.features.store import Clock, Progress, SqliteStore, StoreError
from ml.features.views import DAY, HOUR, MINUTE, SECOND
from ml.materialize import AHEAD, Materializer, main
from ml.params import load_data
from tests.infra.conftest import free_ports
from tests.infra.support.waiting import eventually
from tests.ml.features.conftest import HORIZON, NOON, events, tables, timed

__all__ = ["events", "tables", "timed"]

VIEWS = flight_views.views(HORIZON)
BEGIN, END = NOON - 12 * HOUR, NOON + 12 * HOUR
FOR_EVER = 1000 * DAY
COLUMNS = ("count", "waiting", "ended", "begun")


def store_at(path: Path) -> SqliteStore:
    return SqliteStore(path / "features.db", VIEWS, write=True)


def contents(path: Path) -> list[tuple[str, str, int, str]]:
    connection = sqlite3.connect(path / "features.db")
    try:
        return connection.execute("SELECT * FROM feature_rows ORDER BY 1, 2, 3").fetchall()
    finally:
        connection.close()


def materialized(path: Path, steps: Sequence[tuple[Events, int]]) -> list[tuple[str, str, int, str]]:
    """What is in a new store after these steps: the events delivered until then, and the time of the step."""
    path.mkdir()
    materializer = Materializer(store_at(path), HORIZON, FOR_EVER)
    for delivered, now in steps:
        materializer.advance(delivered, now, begin=BEGIN)
    return contents(path)


TTL = {view.name: view.ttl for view in VIEWS.views}


def since_begin(rows: list[tuple[str, str, int, str]]) -> list[tuple[str, str, int, str]]:
    """Without the rows that had expired before the beginning."""
    return [row for row in rows if (ttl := TTL[row[0].split("/")[1]]) is None or row[2] > BEGIN - ttl]


@pytest.fixture(scope="module")
def whole(events: Events, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, int, str]]:
    """A store that was made in a single step."""
    return materialized(tmp_path_factory.mktemp("store") / "whole", [(events, END)])


def test_rows_are_those_of_the_definitions(events: Events, whole: list[tuple[str, str, int, str]]) -> None:
    found = flights.rows(events.known(END), HORIZON)
    for view in VIEWS.views:
        rows = found[view.name]
        first, last = BEGIN - (view.ttl or 0), END if view.at == "known" else END + AHEAD
        if view.ttl is None:
            first = -1
        expected = rows[(rows[TIMESTAMP] > first) & (rows[TIMESTAMP] <= last)]
        stored = [row for row in whole if row[0].endswith(f"/{view.name}")]
        assert len(stored) == len(expected) > 0, view.name


@pytest.mark.parametrize("step", [7 * MINUTE, 5 * HOUR])
def test_any_steps_give_the_same_store(
    events: Events, whole: list[tuple[str, str, int, str]], tmp_path: Path, step: int
) -> None:
    times = [*range(BEGIN + HOUR, min(END, BEGIN + HOUR + 12 * step), step), END]
    assert materialized(tmp_path / "steps", [(events, now) for now in times]) == whole


def test_another_process_goes_on_where_one_ended(
    events: Events, whole: list[tuple[str, str, int, str]], tmp_path: Path
) -> None:
    for now in (BEGIN + 3 * HOUR, BEGIN + 3 * HOUR, END):
        Materializer(store_at(tmp_path), HORIZON, FOR_EVER).advance(events, now, begin=BEGIN)
    # The second process also wrote rows from before the beginning: it can't know what the first one has seen.
    assert since_begin(contents(tmp_path)) == whole


@pytest.mark.parametrize("seed", range(4))
def test_late_repeated_and_unordered_events_give_the_same_store(
    events: Events, whole: list[tuple[str, str, int, str]], tmp_path: Path, seed: int
) -> None:
    """Each report is delivered up to five hours after it became known, some of them twice, in any order."""
    random = np.random.default_rng(seed)
    delivered = {}
    for name in REPORTS:
        report = getattr(events, name)
        again = pd.concat([report, report.sample(frac=0.2, random_state=seed)])
        again = again.assign(at=again["known"] + random.integers(0, 5 * HOUR, len(again)))
        delivered[name] = again.sample(frac=1, random_state=seed + 1)

    def until(now: int) -> Events:
        parts = {name: part[part["at"] <= now].drop(columns="at") for name, part in delivered.items()}
        return events._replace(**parts)

    times = sorted(random.integers(BEGIN + HOUR, END, 6).tolist())
    steps = [(until(now), now) for now in times]
    found = materialized(tmp_path / "late", [*steps, (until(END + 6 * HOUR), END)])
    assert (
        since_begin(found) == whole
    )  # what became known before the beginning and came later changed earlier rows, too


def test_a_correction_counts_from_its_arrival_on(
    events: Events, whole: list[tuple[str, str, int, str]], tmp_path: Path
) -> None:
    at = NOON + 2 * HOUR
    recent = events.departures[events.departures["departed"].between(NOON, NOON + HOUR)]
    corrected = recent.assign(departed=recent["departed"] + 30 * MINUTE, known=at)
    changed = events._replace(departures=pd.concat([events.departures, corrected]))
    found = materialized(tmp_path / "corrected", [(changed, END)])
    assert [row for row in found if row[2] < at] == [row for row in whole if row[2] < at]
    differing = {row[0].split("/")[1] for row in set(found) ^ set(whole)}
    assert differing == {"origin_delays", "carrier_delays", "dest_delays", "city_delays", "aircraft"}


def test_expired_rows_are_dropped(events: Events, tmp_path: Path) -> None:
    materializer = Materializer(store_at(tmp_path), HORIZON, keep=HOUR)
    for now in (NOON - 8 * HOUR, NOON, NOON + 12 * HOUR):
        materializer.advance(events, now)
    oldest = min(row[2] for row in contents(tmp_path) if row[0].endswith("/city_delays"))
    assert NOON + 12 * HOUR - 2 * HOUR <= oldest < NOON + 12 * HOUR - HOUR
    assert any(row[0].endswith("/register") for row in contents(tmp_path))  # what stays true stays


def test_a_write_that_fails_leaves_the_store_as_it_was(
    events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    materializer = Materializer(store_at(tmp_path), HORIZON)
    materializer.advance(events, NOON)
    before, progress = contents(tmp_path), materializer.progress
    row = {TIMESTAMP: [NOON + 1]} | {name: [object()] for name in COLUMNS}
    unwritable = {"city_delays": lambda *_: pd.DataFrame(row)}
    monkeypatch.setattr(flights, "ROWS", {**flights.ROWS, **unwritable})
    with pytest.raises(TypeError):
        materializer.advance(events, NOON + HOUR)
    assert contents(tmp_path) == before
    assert materializer.progress == progress == SqliteStore(tmp_path / "features.db", VIEWS).progress()


def test_what_a_failed_write_lost_is_written_by_the_next(
    events: Events, whole: list[tuple[str, str, int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the changes of earlier rows by reports that came late."""
    late = events.departures["departed"].between(NOON - 2 * HOUR, NOON - HOUR)
    before = events._replace(departures=events.departures[~late])
    store = store_at(tmp_path)
    materializer = Materializer(store, HORIZON, FOR_EVER)
    materializer.advance(before, NOON, begin=BEGIN)
    with monkeypatch.context() as failing:
        failing.setattr(SqliteStore, "write", Mock(side_effect=StoreError("locked")))
        with pytest.raises(StoreError, match="locked"):
            materializer.advance(events, NOON + HOUR)
    materializer.advance(events, END)
    assert contents(tmp_path) == whole


def holds_or_ended(process: "subprocess.Popen[bytes]", file: Path, most: int) -> bool:
    """Whether the file has more bytes than that, or nobody writes it any more."""
    return process.poll() is not None or (file.exists() and file.stat().st_size > most)


@pytest.mark.slow
def test_killed_while_it_writes_it_goes_on(tmp_path: Path) -> None:
    """A step of a week writes more than SQLite keeps in memory, so what is half done is in the file's log."""
    command = [sys.executable, "-m", "ml.materialize", "--since", "2013-12-01", "--until", "2013-12-20"]
    log = tmp_path / "features.db-wal"
    for most in (100_000, 3_000_000):
        process = subprocess.Popen([*command, "--store", str(tmp_path / "features.db")])
        # Nothing tells how much of a step is written but the file, and the time to kill it is short.
        eventually(partial(holds_or_ended, process, log, most), pause=0.001)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        with sqlite3.connect(tmp_path / "features.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            [left] = connection.execute("SELECT count(*) FROM progress").fetchone()
            assert left or not contents(tmp_path)
    subprocess.run([*command, "--store", str(tmp_path / "features.db")], check=True)
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run([*command, "--store", str(other / "features.db")], check=True)
    assert contents(tmp_path) == contents(other)


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "features.db").write_text("not a database" * 100)
    assert main(["--store", str(tmp_path / "features.db")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("materialize: the feature store")
    assert error.endswith("delete the file, and materialise again")


def test_a_replays_clock() -> None:
    clock = Clock(simulated=1_000_000, real=50, speed=60)
    assert clock.at(50) == 1_000_000
    assert clock.at(50 + 1_000_000) == 61_000_000
    assert Clock(7, 50, 0).at(10**9) == 7


def test_it_is_ready_when_it_has_written_and_alive_until_no_step_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(lambda: 90 * SECOND)
    assert metrics.answer("/health/ready")[0] == 503
    assert b"atlas_materializer_lag_seconds NaN" in metrics.answer("/metrics")[1]
    metrics.written(Progress(30 * SECOND, 1, None))
    assert metrics.answer("/health/ready")[0] == 200
    assert b"atlas_materializer_lag_seconds 60.0" in metrics.answer("/metrics")[1]
    assert metrics.answer("/health/live")[0] == 200
    monkeypatch.setattr(materializing, "HUNG", 0.0)
    assert metrics.answer("/health/live")[0] == 503
    assert metrics.answer("/another")[0] == 404


def test_metrics_are_served_before_the_first_step_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [port] = free_ports(1)
    answers: list[int] = []

    def read_events() -> Events:
        for path in ("live", "ready"):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/{path}", timeout=5) as answer:
                    answers.append(answer.status)
            except urllib.error.HTTPError as error:
                answers.append(error.code)
        raise FileNotFoundError("no flights")

    monkeypatch.setattr("ml.materialize.source.read_events", read_events)
    assert main(["--store", str(tmp_path / "features.db"), "--follow", "--port", str(port)]) == 1
    assert answers == [200, 503]
    assert capsys.readouterr().err.splitlines()[-1] == "materialize: no flights"


def test_params_of_an_image_have_only_the_section_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"source": "flights", "uri": "-", "target": "late", "task": "binary", "horizon": "2h"}
    Path("params.yaml").write_text(json.dumps({"data": data}))
    assert load_data().target == "late"
    Path("params.yaml").write_text(json.dumps({"data": {**data, "sauce": 1}}))
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("materialize: params.yaml: data.sauce: ")
