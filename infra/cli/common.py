"""What every command shares: where words go, what an error looks like, how Ctrl-C is passed on."""

import signal
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import click
import psutil
from pulumi import automation as auto

from infra.bundle import bundle_manifest
from infra.engine.install import EngineError
from infra.engine.locks import LockedError
from infra.engine.workspace import COLOURS, REPOSITORY, Progress, stack_settings
from infra.preflight import PreflightError, check
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
        interruption = Interruption()
        try:
            command(**options)
        except (SettingsError, EngineError, LockedError, PreflightError) as error:
            say("\n".join(f"atlas: {line}" for line in str(error).splitlines()))
            sys.exit(1)
        except (auto.CommandError, Failed) as error:
            if interruption.happened:
                say(f"atlas: interrupted; `atlas {command.__name__}` again goes on from here")
                sys.exit(130)
            if isinstance(error, Failed):
                say("\n".join(f"atlas: {line}" for line in error.lines))
                sys.exit(1)
            text = COLOURS.sub("", str(error))
            lines = [line for line in text.splitlines() if "error:" in line]
            say(f"atlas: {lines[-1].strip() if lines else text.strip()[-1000:]}")
            sys.exit(1)

    return run


class Failed(Exception):  # noqa: N818 - reads as a sentence
    """The engine reported errors."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[0])
        self.lines = lines


def raise_reported(progress: Progress) -> None:
    """Raise Failed with what the engine reported, if it did."""
    if progress.errors:
        raise Failed(progress.errors) from None


class Interruption:
    """Ctrl-C: the engine is told once and finishes what it is doing, so that nothing is left half noted."""

    def __init__(self) -> None:
        self.happened = False
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)

    def _interrupt(self, number: int, _: object) -> None:
        # A terminal sends Ctrl-C to the engine too; a second one would make it drop everything.
        told = number == signal.SIGINT and sys.stdin.isatty() and not self.happened
        self.happened = True
        say("interrupted: finishing what has begun")
        if not told:
            for child in psutil.Process().children():
                with suppress(psutil.Error):
                    child.send_signal(signal.SIGINT)


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
