"""Options, output and error handling that all commands share."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from pulumi import automation as auto

from infra.bundle import bundle_manifest
from infra.deployment.checks import check
from infra.engine.events import plain
from infra.engine.interruption import Interruption
from infra.engine.stack import AtlasStack
from infra.engine.workspace import REPOSITORY, stack_settings
from infra.errors import (
    EXPIRED_LINE,
    AtlasError,
    ConfirmationError,
    FailedError,
    SettingsError,
    StepError,
    expired,
)
from infra.settings import AwsSettings, BootstrapSettings, LocalSettings, Settings

stack_option = click.option(
    "--stack", default="local", show_default=True, help="The stack; its settings are in Pulumi.<stack>.yaml."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON document on standard output.")


def say(line: str) -> None:
    """Print progress on standard error; results go to standard output."""
    click.echo(line, err=True)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Report every expected error as one clear line, with exit status 1; 130 after an interruption."""

    @wraps(command)
    def run(**options: Any) -> None:
        Interruption(say)
        try:
            command(**options)
        except (AtlasError, auto.CommandError, KeyboardInterrupt, click.Abort) as error:
            if Interruption.happened:
                say(f"atlas: interrupted; `atlas {command.__name__}` again continues from here")
                sys.exit(130)
            if not isinstance(error, AtlasError | auto.CommandError):
                raise  # the person didn't confirm
            say("\n".join(f"atlas: {line}" for line in _lines(error)))
            sys.exit(1)

    return run


def _lines(error: AtlasError | auto.CommandError) -> list[str]:
    """The message for an error; expired credentials always have the same message."""
    if isinstance(error, auto.CommandError):
        text = plain(str(error))
        found = [line for line in text.splitlines() if "error:" in line]
        lines = [found[-1].split("error:", 1)[1].strip() if found else text[-1000:]]
    else:
        text, lines = "\n".join(error.lines), error.lines
    ran = isinstance(error, auto.CommandError | FailedError | StepError)
    return [EXPIRED_LINE] if ran and expired(text) else lines


def settings_of(stack: str, *, makes: bool = True, shows: bool = False) -> Settings:
    """The stack's settings, after checking that the command can work.

    `makes`: the command creates resources; `shows`: it only shows what it would create, which a read-only role may do.
    """
    settings = stack_settings(stack, REPOSITORY)
    if isinstance(settings, BootstrapSettings):
        raise SettingsError(f"the stack {stack} has no service: `atlas bootstrap` creates and removes it")
    if makes and deploys_bundle(settings):
        bundle_manifest(REPOSITORY / settings.bundle)
    if isinstance(settings, AwsSettings):
        check(settings, changes=makes and not shows)
    return settings


def deploys_bundle(settings: Settings) -> bool:
    """Whether the stack serves this checkout's bundle, and not an image that its settings name."""
    return isinstance(settings, LocalSettings) or settings.image is None


def stack_of(name: str, *, makes: bool = True, shows: bool = False) -> AtlasStack:
    """The stack with its settings, checked like in `settings_of`; this doesn't start the engine."""
    return AtlasStack(name, settings_of(name, makes=makes, shows=shows), say)


def agree(question: str, *, yes: bool, command: str) -> None:
    """Continue if the person at the terminal agrees; `command` is the command that doesn't ask, for use without a
    terminal.

    Raises ConfirmationError without a terminal, click.Abort when the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfirmationError(f"without a terminal nobody can be asked: `{command}`")
    click.confirm(question, abort=True, err=True)


def table(outputs: dict[str, Any]) -> None:
    """Names and values, aligned."""
    click.echo()
    width = max(map(len, outputs), default=0) + 2
    for name, value in outputs.items():
        click.echo(f"  {name:<{width}}{value}")
