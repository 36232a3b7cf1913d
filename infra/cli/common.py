"""What every command shares: where words go, what an error looks like."""

import sys
import urllib.request
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from pulumi import automation as auto

from infra.bundle import bundle_manifest
from infra.engine.install import EngineError
from infra.engine.interruption import Interruption
from infra.engine.locks import LockedError
from infra.engine.workspace import COLOURS, REPOSITORY, Progress, stack_settings
from infra.preflight import EXPIRED, EXPIRED_LINE, PreflightError, check
from infra.settings import AwsSettings, BootstrapSettings, LocalSettings, Settings, SettingsError

stack_option = click.option("--stack", default="local", show_default=True, help="Which Pulumi.<stack>.yaml.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")


def say(line: str) -> None:
    """Progress goes to standard error, answers to standard output."""
    click.echo(line, err=True)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn every expected error into one clear line and exit status 1; 130 when interrupted."""

    @wraps(command)
    def run(**options: Any) -> None:
        Interruption(say)
        try:
            command(**options)
        except (*EXPECTED, KeyboardInterrupt, click.Abort) as error:
            if Interruption.happened:
                say(f"atlas: interrupted; `atlas {command.__name__}` again goes on from here")
                sys.exit(130)
            if not isinstance(error, EXPECTED):
                raise  # an answer that is no
            say("\n".join(f"atlas: {line}" for line in _lines(error)))
            sys.exit(1)

    return run


def _lines(error: Exception) -> list[str]:
    """What is said of an error."""
    if isinstance(error, Failed):
        lines = [EXPIRED_LINE] if _expired("\n".join(error.lines)) else error.lines
    elif isinstance(error, auto.CommandError):
        text = COLOURS.sub("", str(error))
        found = [line for line in text.splitlines() if "error:" in line]
        lines = [found[-1].split("error:", 1)[1].strip() if found else text.strip()[-1000:]]
        lines = [EXPIRED_LINE] if _expired(text) else lines
    else:
        lines = str(error).splitlines()
    return lines


class Failed(Exception):  # noqa: N818 - reads as a sentence
    """The engine reported errors."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[0])
        self.lines = lines


EXPECTED = (SettingsError, EngineError, LockedError, PreflightError, auto.CommandError, Failed)
"""Errors that are told in a line, and no more."""


def raise_reported(progress: Progress) -> None:
    """Raise Failed with what the engine reported, if it did; PreflightError when that is credentials that ended."""
    if _expired("\n".join(progress.errors)):
        raise PreflightError(EXPIRED_LINE) from None
    if progress.errors:
        raise Failed(progress.errors) from None


def _expired(text: str) -> bool:
    return any(code in text for code in EXPIRED)


def settings_of(stack: str, *, makes: bool = True, shows: bool = False) -> Settings:
    """The stack's settings, once it is sure that the command can work.

    `makes`: it makes things; `shows`: it only shows what would be made, as a role may that only reads.
    """
    settings = stack_settings(stack, REPOSITORY)
    if isinstance(settings, BootstrapSettings):
        raise SettingsError(f"the stack {stack} serves nothing: `atlas bootstrap` makes and removes it")
    if makes and (isinstance(settings, LocalSettings) or settings.image is None):
        bundle_manifest(REPOSITORY / settings.bundle)
    if isinstance(settings, AwsSettings):
        check(settings, changes=makes and not shows)
    return settings


def answers(url: str) -> bool:
    """Whether it says 200 within five seconds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - loopback
            return bool(response.status == 200)
    except OSError:
        return False


def table(outputs: dict[str, Any]) -> None:
    """Names and values, aligned."""
    click.echo()
    width = max(map(len, outputs), default=0) + 2
    for name, value in outputs.items():
        click.echo(f"  {name:<{width}}{value}")
