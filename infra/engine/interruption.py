"""Ctrl-C: the command's child processes get the signal once and finish their operations; nothing new is started."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from pulumi import automation as auto
from semver import VersionInfo


class Interruption:
    """Whether this process was interrupted, by Ctrl-C or SIGTERM."""

    happened = False
    """An attribute of the class, because signals concern the whole process."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)

    def _interrupt(self, number: int, _: object) -> None:
        first, Interruption.happened = not Interruption.happened, True
        running = psutil.Process().children()
        if not running:
            raise KeyboardInterrupt  # no engine runs, so no operation is left half recorded
        self._say("interrupted: finishing the operations in progress")
        # A terminal sends Ctrl-C to the engine too; a second signal would make the engine stop at once.
        if not (number == signal.SIGINT and sys.stdin.isatty() and first):
            for child in running:
                with suppress(psutil.Error):
                    child.send_signal(signal.SIGINT)


class Engine(auto.PulumiCommand):
    """The engine's command. After an interruption it ends the `atlas` command too, whatever its own exit status was.

    Otherwise `atlas` would retry the interrupted operation, or start an `up` after an interrupted preview.
    """

    def __init__(self, executable: Path, version: str) -> None:
        """`version`: the executable's own, which the SDK would ask it for a second time."""
        self.command, self.version = str(executable), VersionInfo.parse(version)

    def run(self, *arguments: Any, **options: Any) -> auto.CommandResult:
        """Raises KeyboardInterrupt after an interruption, CommandError when the engine failed."""
        try:
            return super().run(*arguments, **options)
        finally:
            if Interruption.happened:
                raise KeyboardInterrupt
