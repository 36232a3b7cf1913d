"""The store has what the files of declared views say until now, however often and from wherever they are read."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml.data_params import DataParams
from ml.features.declared import views_of
from ml.features.store import SqliteStore
from ml.features.views import DAY, HOUR
from ml.file_materializer import FileMaterializer, with_files_at
from ml.materialize import main
from ml.sources.reading import SourceError
from tests.ml.conftest import Workspace, workspace

__all__ = ["workspace"]

NOON = 1_709_294_400_000_000  # 2024-03-01T12:00Z
SECTION: dict[str, Any] = {
    "source": "table",
    "uri": "table.csv",
    "target": "y",
    "task": "binary",
    "time": "at",
    "views": {
        "weather": {"uri": "weather.csv", "keys": ["city"], "timestamp": "seen", "ttl": "6h", "features": ["wind"]},
        "shops": {"uri": "shops.csv", "keys": ["shop"], "timestamp": "since", "features": ["open"]},
    },
}
DATA = DataParams.model_validate(SECTION)
VIEWS = views_of(DATA)
VIEWS_AT = {
    name: DATA.views["weather"].model_copy(update={"uri": uri})
    for name, uri in (
        ("relative", "data/weather.csv"),
        ("absolute", "/data/weather.csv"),
        ("elsewhere", "s3://other/weather.csv"),
    )
}
LOG = logging.getLogger("test")


def weather(**rows: float) -> None:
    """A row for each hour of 1 March, as `h11=3.5`."""
    lines = [f"Rome,2024-03-01T{name[1:]}:00,{wind}" for name, wind in rows.items()]
    Path("weather.csv").write_text("\n".join(["city,seen,wind", *lines, ""]))


def shops() -> None:
    Path("shops.csv").write_text("shop,since,open\n7,1965-01-01,True\n7,2024-03-01T11:30,False\n")


def materializer(name: str = "features.db", keep: int = DAY) -> FileMaterializer:
    assert VIEWS is not None
    return FileMaterializer(DATA, SqliteStore(Path(name), VIEWS, write=True), keep, LOG)


def contents(view: str, name: str = "features.db") -> list[tuple[str, int, str]]:
    connection = sqlite3.connect(name)
    try:
        rows = connection.execute("SELECT view, entity, event_timestamp, row FROM feature_rows ORDER BY 2, 3")
        return [row[1:] for row in rows if row[0].endswith(f"/{view}")]
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def _files(workspace: Workspace) -> None:
    shops()
    weather(h10=1, h11=2.5, h13=3)


def test_rows_come_in_when_their_time_has_come() -> None:
    ours = materializer()
    ours.advance(NOON)
    assert contents("weather") == [('["Rome"]', NOON - 2 * HOUR, "[1.0]"), ('["Rome"]', NOON - HOUR, "[2.5]")]
    assert [row for *_, row in contents("shops")] == ["[true]", "[false]"]
    ours.advance(NOON + HOUR)
    assert [row for *_, row in contents("weather")] == ["[1.0]", "[2.5]", "[3.0]"]


def test_a_changed_file_replaces_its_rows() -> None:
    ours = materializer()
    ours.advance(NOON)
    weather(h09=0, h11=7)
    ours.advance(NOON + 1)
    assert [row for *_, row in contents("weather")] == ["[0.0]", "[7.0]"]
    assert len(contents("shops")) == 2


def test_another_process_goes_on_and_gives_the_same_store() -> None:
    for now in (NOON - HOUR, NOON, NOON + 2 * HOUR):
        progress = materializer().advance(now)
    assert progress.revision == 3
    materializer("other.db").advance(NOON + 2 * HOUR)
    for view in ("weather", "shops"):
        assert contents(view) == contents(view, "other.db")


def test_expired_rows_go_and_rows_without_ttl_stay() -> None:
    ours = materializer(keep=HOUR)
    ours.advance(NOON)
    ours.advance(NOON + 6 * HOUR)
    assert [row for *_, row in contents("weather")] == ["[2.5]", "[3.0]"]  # older than ttl and keep: 10 o'clock
    assert len(contents("shops")) == 2


def test_a_file_that_can_not_be_read_changes_nothing_until_it_can() -> None:
    ours = materializer()
    before = ours.advance(NOON)
    Path("weather.csv").write_text("city,seen\nRome,2024-03-01\n")
    with pytest.raises(SourceError, match=r"data.views.weather.features: weather.csv has no column 'wind'"):
        ours.advance(NOON + HOUR)
    assert len(contents("weather")) == 2
    weather(h11=9)
    assert ours.advance(NOON + HOUR).revision == before.revision + 1
    assert [row for *_, row in contents("weather")] == ["[9.0]"]


def test_the_command_says_what_is_wrong(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.params(data=SECTION | {"views": {}})
    assert main([]) == 1
    assert capsys.readouterr().err == (
        "materialize: params.yaml: data.views: the table has no views, so there is nothing to materialise\n"
    )
    workspace.params(data=SECTION)
    Path("shops.csv").unlink()
    assert main([]) == 1
    assert "shops.csv not found: check data.views.shops.uri in params.yaml" in capsys.readouterr().err


def test_relative_paths_are_looked_for_where_it_is_told() -> None:
    found = with_files_at(DATA.model_copy(update={"views": VIEWS_AT}), "s3://bucket/features/")
    assert {name: view.uri for name, view in found.views.items()} == {
        "relative": "s3://bucket/features/data/weather.csv",
        "absolute": "/data/weather.csv",
        "elsewhere": "s3://other/weather.csv",
    }


def test_the_command_reads_files_below_another_folder(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace.params(data=SECTION)
    there = tmp_path_factory.mktemp("there")
    for name in ("weather.csv", "shops.csv"):
        Path(name).rename(there / name)
    assert main(["--store", "features.db"]) == 1
    assert main(["--store", "features.db", "--files", str(there), "--keep", "100000"]) == 0
    assert len(contents("weather")) == 3


def test_the_command_follows_until_a_signal_ends_it(workspace: Workspace) -> None:
    workspace.params(data=SECTION)
    repository = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "ml.materialize", "--store", "features.db", "--follow", "--keep", "100000"]
    environment = os.environ | {"PYTHONPATH": repository}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "materialised until" in line)
        assert pd.Timestamp(said.split()[-1]) > pd.Timestamp("2024-03-01T12:00Z")
        assert len(contents("weather")) == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
