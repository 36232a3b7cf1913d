"""`atlas key`: API keys of the service."""

import os
import sys
from pathlib import Path

import click

from infra.engine.workspace import REPOSITORY

FILE = click.option("--file", default="keys.json", show_default=True, help="The file with the keys' hashes.")


@click.group()
def key() -> None:
    """Make, list and remove API keys of the service.

    The file contains only hashes, so it may be committed. Settings name it: atlas:apiKeysFile of a stack, and
    API_KEYS_FILE of the service.

    Example: atlas key new web-shop --per-second 50
    """


@key.command()
@click.argument("name")
@FILE
@click.option("--expires", help="A date, such as 2027-01-31, or a time from now, such as 90d, 12h or 30m.")
@click.option("--per-second", type=float, help="Requests per second that all keys of this name together may send.")
@click.option("--burst", type=int, help="Requests at once after a pause; as many as in a second by default.")
@click.option("--retire", help="Let the other keys of this name expire at this date, or after this time.")
def new(
    name: str, file: str, expires: str | None, per_second: float | None, burst: int | None, retire: str | None
) -> None:
    """Print a new API key for the caller NAME, the only time, and write its hash.

    Further keys of a name have the limit of its last key by default.

    Example: atlas key new web-shop --retire 7d
    """
    given = {"expires": expires, "per-second": per_second, "burst": burst, "retire": retire}
    _run(file, "new", *(f"--{option}={value}" for option, value in given.items() if value is not None), "--", name)


@key.command("list")
@FILE
def list_(file: str) -> None:
    """Show the names, the beginnings of the hashes, when keys expire, and their limits.

    Example: atlas key list
    """
    _run(file, "list")


@key.command()
@click.argument("name")
@FILE
@click.option(
    "--hash", "beginning", default="", help="Only the key whose hash begins so, as `atlas key list` shows it."
)
def remove(name: str, file: str, beginning: str) -> None:
    """Remove the keys of the caller NAME.

    Example: atlas key remove web-shop --hash 43032ff81946
    """
    _run(file, "remove", f"--hash={beginning}", "--", name)


def _run(file: str, *arguments: str) -> None:
    """This process becomes the service's own command, in the repository, because its packages are there."""
    absolute = str(Path(file).absolute())
    os.chdir(REPOSITORY)
    os.execv(sys.executable, [sys.executable, "-m", "service.access", f"--file={absolute}", *arguments])  # noqa: S606
