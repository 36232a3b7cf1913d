"""Ctrl-C: what runs for the command is told once and finishes what it is doing; nothing more is begun after it."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
from pulumi import automation as auto


class Interruption:
    """Whether this process was interrupted, by Ctrl-C or SIGTERM."""

    happened = False
    """Of the process, as signals are."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)

    def _interrupt(self, number: int, _: object) -> None:
        first, Interruption.happened = not Interruption.happened, True
        running = psutil.Process().children()
        if not running:
            raise KeyboardInterrupt  # waiting, or asking AWS: nothing is left half noted
        self._say("interrupted: finishing what has begun")
        # A terminal sends Ctrl-C to the engine too; a second one would make it drop everything.
        if not (number == signal.SIGINT and sys.stdin.isatty() and first):
            for child in running:
                with suppress(psutil.Error):
                    child.send_signal(signal.SIGINT)


class Engine(auto.PulumiCommand):
    """The engine's command; one that was interrupted ends the command that ran it, however it ended itself.

    Otherwise what was interrupted would be tried again, or an `up` begun after its preview.
    """

    def run(self, *arguments: Any, **options: Any) -> auto.CommandResult:
        """Raises KeyboardInterrupt after an interruption, CommandError when the engine failed."""
        try:
            return super().run(*arguments, **options)
        finally:
            if Interruption.happened:
                raise KeyboardInterrupt
