"""Creates MLflow's SQLite database atomically: it exists completely or not at all.

MLflow creates the database with about seventy schema migrations in place. SQLite commits each statement separately, so
a process that is killed during the migrations leaves tables that the next start can neither use nor complete. Here the
migrations run on a temporary file, which gets the database's name when it is complete.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

FILES = ("", "-journal", "-wal", "-shm")
"""The suffixes of SQLite's additional files of a database."""
PATIENCE = 30
"""Seconds to wait for a process that is writing to the database."""


class StoreError(Exception):
    """A database that MLflow can't use; the message says why and what to do."""


def database_of(uri: str) -> Path | None:
    """The database file in a store's address; None if the address isn't that of an SQLite file."""
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

    Raises StoreError when the file is incomplete, belongs to another version of MLflow, or isn't a database.
    """
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with locked(database.parent):  # only this process uses the temporary file
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
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process holds the folder's lock, and hold it; the lock ends with the process."""
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
    """Refuse to continue if old journals exist: SQLite would apply them to the new database."""
    for suffix in FILES[1:]:
        leftover = database.with_name(database.name + suffix)
        if leftover.exists():
            raise StoreError(
                f"{leftover} belongs to {database}, which is missing: restore it, or move {leftover.name} away"
            )


def _create(fresh: Path) -> None:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine
    from sqlalchemy import event

    engine = create_sqlalchemy_engine(f"sqlite:///{fresh}")  # type: ignore[no-untyped-call]

    @event.listens_for(engine, "connect")
    def hurry(connection: sqlite3.Connection, _record: object) -> None:
        # A crash loses only this temporary file, so it is synced only at the end, which takes a third of the time.
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")

    try:
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()
    with fresh.open("rb+") as file:
        os.fsync(file.fileno())


def _place(fresh: Path, database: Path) -> None:
    """Give the complete file its name; if another program has created a database meanwhile, keep that database."""
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
    # Not read-only, because SQLite must be able to roll back the transaction of a killed process.
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
        f"{database} is unfinished, because MLflow was interrupted while it created it, and has no run or model: "
        "remove the file, then run this again"
    )
