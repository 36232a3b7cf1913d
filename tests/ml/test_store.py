"""MLflow's SQLite database is created atomically, even after interruptions; an incomplete file is reported and kept."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ml.store import StoreError, database_of, prepare

# MLflow's imports cause deprecation warnings from its dependencies.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]

INTERRUPTED = """
import os, signal, sys
from pathlib import Path
import mlflow.store.db.utils as utils
from sqlalchemy import event
from sqlalchemy.engine import Engine
from ml import store

database, create = Path(sys.argv[1]), sys.argv[3]

def until_killed(moment):
    # The process kills itself there, to simulate a crash of the machine.
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    if moment.isdigit():
        count = 0
        @event.listens_for(Engine, "after_cursor_execute")
        def watch(connection, cursor, statement, *rest):
            nonlocal count
            count += "alembic_version" in statement and statement.startswith(("INSERT", "UPDATE"))
            if count == int(moment) and "alembic_version" not in statement:
                die()  # the revision is recorded, and the first statement of the next has been executed
    elif moment == "moved":
        link = os.link
        os.link = lambda *names: (link(*names), die())
    elif moment == "finished":
        os.link = lambda *names: die()
    if create == "ours":
        store.prepare(database)
    else:
        utils._initialize_tables(utils.create_sqlalchemy_engine(f"sqlite:///{database}"))

for moment in sys.argv[2].split(","):
    child = os.fork()
    if child == 0:
        until_killed(moment)
        os._exit(0)
    print(moment, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), database.exists(), flush=True)
"""


def interrupted(database: Path, *moments: str, create: str = "ours") -> list[str]:
    """Create the database in processes that are killed at these moments, and return the result of each."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERRUPTED, str(database), ",".join(moments), create],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def beside(database: Path) -> list[str]:
    return sorted(file.name for file in database.parent.iterdir())


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete database, as a template to copy."""
    database = tmp_path_factory.mktemp("created") / "mlflow.db"
    prepare(database)
    return database


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that MLflow leaves if it is killed while it creates its database, as a template to copy."""
    database = tmp_path_factory.mktemp("unfinished") / "mlflow.db"
    assert interrupted(database, "20", create="mlflow") == [f"20 -{int(signal.SIGKILL)} True"]
    return database


def copy(source: Path, folder: Path) -> Path:
    """The database and SQLite's additional files."""
    for file in source.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / source.name


def test_creation_that_is_killed_again_and_again_starts_anew_and_ends_whole(tmp_path: Path, created: Path) -> None:
    database = tmp_path / "mlflow.db"
    killed = -int(signal.SIGKILL)
    moments = ("0", "1", "2", "5", "13", "34", "50", "64", "finished")
    assert interrupted(database, *moments) == [f"{moment} {killed} False" for moment in moments]
    assert beside(database) == [".mlflow.db.new"]
    assert interrupted(database, "moved", "none") == [f"moved {killed} True", "none 0 True"]
    assert beside(database) == ["mlflow.db"]
    assert schema(database) == schema(created)


def schema(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        # Not the SQL text, because SQLAlchemy writes a table's constraints in an arbitrary order.
        columns = connection.execute(
            'SELECT item.type, item.name, part.name, part.type, part."notnull" FROM sqlite_master AS item '
            "LEFT JOIN pragma_table_info(item.name) AS part ORDER BY 1, 2, 3"
        )
        return [*map(str, columns), *map(str, connection.execute("SELECT * FROM alembic_version"))]


def test_mlflow_takes_the_created_database_as_its_own(tmp_path: Path, created: Path) -> None:
    import mlflow

    database = copy(created, tmp_path)
    before = schema(database)
    client = mlflow.MlflowClient(f"sqlite:///{database}", f"sqlite:///{database}")
    run = client.create_run(client.create_experiment("mine"))
    client.log_metric(run.info.run_id, "score", 0.5)
    prepare(database)
    assert client.get_run(run.info.run_id).data.metrics == {"score": 0.5}
    assert schema(database) == before


def test_unfinished_database_is_named_with_the_remedy_and_not_touched(tmp_path: Path, unfinished: Path) -> None:
    database = copy(unfinished, tmp_path)
    with closing(sqlite3.connect(database)) as connection:  # SQLite's own clean-up comes first
        before = list(connection.iterdump())
    with pytest.raises(StoreError, match=r"mlflow\.db is unfinished.*has no run or model: remove the file") as raised:
        prepare(database)
    assert len(str(raised.value).splitlines()) == 1
    with closing(sqlite3.connect(database)) as connection:
        assert list(connection.iterdump()) == before
    database.unlink()
    prepare(database)


def test_empty_file_is_unfinished_too(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.touch()
    with pytest.raises(StoreError, match="is unfinished"):
        prepare(database)


def test_database_of_another_version_that_holds_runs_is_kept_and_the_upgrade_is_named(
    tmp_path: Path, created: Path
) -> None:
    database = copy(created, tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'older'")
        connection.execute("INSERT INTO registered_models (name, workspace) VALUES ('mine', 'default')")
        connection.commit()
    before = database.read_bytes()
    told = rf"has the schema older, but .* needs \w+: copy the file .*`mlflow db upgrade sqlite:///{database}`"
    with pytest.raises(StoreError, match=told):
        prepare(database)
    assert database.read_bytes() == before


def test_file_that_is_no_database_is_named_and_kept(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_text("not a database, but long enough to be read as the head of it" * 40)
    with pytest.raises(StoreError, match="can't be read as an SQLite database"):
        prepare(database)
    assert database.read_text().startswith("not a database")


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_journal_without_its_database_is_never_played_into_a_new_one(tmp_path: Path, suffix: str) -> None:
    leftover = tmp_path / f"mlflow.db{suffix}"
    leftover.write_bytes(b"someone's")
    with pytest.raises(StoreError, match=rf"mlflow\.db{suffix} belongs to .*, which is missing"):
        prepare(tmp_path / "mlflow.db")
    assert leftover.read_bytes() == b"someone's"


def test_database_that_another_program_created_meanwhile_stays(
    tmp_path: Path, created: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, link = tmp_path / "mlflow.db", os.link

    def link_late(source: Path, target: Path) -> None:
        copy(created, tmp_path)
        link(source, target)

    monkeypatch.setattr(os, "link", link_late)
    monkeypatch.setattr("ml.store._create", Path.touch)
    prepare(database)
    assert schema(database) == schema(created)
    assert beside(database) == ["mlflow.db"]


def test_file_system_without_hard_links_gets_the_database_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", source, None, target)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr("ml.store._create", lambda fresh: fresh.write_text("whole"))
    prepare(tmp_path / "mlflow.db")
    assert beside(tmp_path / "mlflow.db") == ["mlflow.db"]
    assert (tmp_path / "mlflow.db").read_text() == "whole"


def test_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/mlflow\.db can't be used: "):
        prepare(tmp_path / "file" / "mlflow.db")


@pytest.mark.parametrize(
    ("uri", "database"),
    [
        ("sqlite:////var/lib/mlflow.db", "/var/lib/mlflow.db"),
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite+pysqlite:///mlflow.db?timeout=9", "mlflow.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://me:secret@db.example/mlflow", None),
        ("https://mlflow.example", None),
        ("file:///mlruns", None),
        ("mlruns", None),
    ],
)
def test_database_is_found_in_the_address(uri: str, database: str | None) -> None:
    assert database_of(uri) == (None if database is None else Path(database))


def test_mlflow_server_names_an_unfinished_database_and_ends(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    command = [sys.executable, "-m", "ml.mlflow_server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"mlflow: {tmp_path}/mlflow.db is unfinished")
