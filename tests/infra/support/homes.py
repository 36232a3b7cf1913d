"""Folders of the engine for tests."""

from pathlib import Path


def home_without_logs(folder: Path) -> Path:
    """A folder for PULUMI_HOME in which the engine can't keep logs.

    It writes each run's debug messages to a compressed, encrypted file, which takes a third of its CPU time, and does
    without where it can't make the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "logs").touch()
    return folder
