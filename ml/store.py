"""The SQLite database that MLflow keeps runs and models in: there whole, or not there.

MLflow creates it by some seventy schema migrations in place. SQLite commits each statement by itself, so a process that
is killed meanwhile leaves tables that the next start can neither use nor finish. Here the migrations run on a file
beside it, which gets the database's name once it is finished.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

FILES = ("", "-journal", "-wal", "-shm")
"""What SQLite appends to a database's name for the files that it keeps beside it."""
PATIENCE = 30
"""Seconds to wait for a process that is writing to the database."""


class StoreError(Exception):
    """A database that MLflow can't use; the message says why and what to do."""


def database_of(uri: str) -> Path | None:
    """The database file that a store's address names; None when it names no SQLite file."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":memory:", "file:")):
        return None
    return Path(url.database)


def prepare(database: Path) -> None:
    """Create the database if it is missing. It can be killed at any moment and called again; it removes no data.

    Raises StoreError when the database is unfinished, of another version of MLflow, or no database.
    """
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with _locked(database.parent):
            fresh = database.with_name(f".{database.name}.new")
            _remove(fresh)
            if not database.exists():
                _refuse_leftovers(database)
                _create(fresh)
                _place(fresh, database)
                return
        _check(database)
    except OSError as error:
        raise StoreError(f"{database} can't be used: {error.strerror or error}") from None
    except sqlite3.Error as error:
        raise StoreError(
            f"{database} can't be read as an SQLite database ({error}): restore it, or move it away"
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only this process works on the unfinished file in the folder; the lock ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove(fresh: Path) -> None:
    for suffix in FILES:
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)


def _refuse_leftovers(database: Path) -> None:
    """SQLite would play an old journal back into the new database."""
    for suffix in FILES[1:]:
        leftover = database.with_name(database.name + suffix)
        if leftover.exists():
            raise StoreError(
                f"{leftover} belongs to {database}, which is missing: restore that, or move {leftover.name} away"
            )


def _create(fresh: Path) -> None:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine
    from sqlalchemy import event

    engine = create_sqlalchemy_engine(f"sqlite:///{fresh}")  # type: ignore[no-untyped-call]

    @event.listens_for(engine, "connect")
    def hurry(connection: sqlite3.Connection, _record: object) -> None:
        # A crash costs only this unfinished file, so it is synced once, at the end: a third of the time.
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")

    try:
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()
    with fresh.open("rb+") as file:
        os.fsync(file.fileno())


def _place(fresh: Path, database: Path) -> None:
    """Give the finished file its name; a database that another program created meanwhile stays."""
    try:
        os.link(fresh, database)  # unlike a rename, it never replaces a file
    except FileExistsError:
        _check(database)
    except OSError:  # a file system without hard links
        fresh.rename(database)
    _remove(fresh)


def _check(database: Path) -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision

    wanted = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
    # Not read-only: SQLite must be able to roll back what a killed process was writing.
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = None
        if "alembic_version" in tables:
            found = next(iter(connection.execute("SELECT version_num FROM alembic_version")), (None,))[0]
        if found == wanted:
            return
        in_use = any(
            table in tables and connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608
            for table in ("experiments", "runs", "registered_models")
        )
    if in_use:
        raise StoreError(
            f"{database} has the schema {found}, but this version of MLflow needs {wanted}: copy the file to a safe "
            f"place, then run `mlflow db upgrade sqlite:///{database}`"
        )
    raise StoreError(
        f"{database} is unfinished, because MLflow was interrupted while it created it, and holds no run or model: "
        "remove the file, then run this again"
    )
