"""Processes on this machine: which belong to a stack, whether they answer, the end of their logs.

Every process that a stack's supervisord starts has the stack's folder in its environment. So a process is found even if
its supervisor was killed, and never by its name, or by a process id that another process may have got since.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "ATLAS_STACK_DIRECTORY"
"""The environment variable with the stack's folder."""
PROGRAM = "ATLAS_PROGRAM"
"""The environment variable with the program's name."""
LOG_LINES = 15


def marked(home: Path, name: str | None = None) -> list[psutil.Process]:
    """This user's processes of the stack whose files are below `home`: of the program `name`, or all."""
    found = []
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and variables.get(MARK) == str(home) and name in (None, variables.get(PROGRAM)):
            found.append(process)
    return found


def end(processes: Sequence[psutil.Process]) -> list[int]:
    """End the processes, if necessary by SIGKILL; returns their ids."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=10)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=5)
    return [process.pid for process in processes]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a starting process has done so far."""

    cpu_seconds: float = 0
    """Of the process and its children."""
    log_bytes: int = 0

    def since(self, before: "Progress", seconds: float) -> bool:
        """Whether it did something in these seconds: an idle process uses less than a hundredth of a CPU."""
        return self.log_bytes != before.log_bytes or self.cpu_seconds - before.cpu_seconds > seconds / 100


def progress(pid: int, log: Path) -> Progress:
    """What the process has done so far."""
    cpu = 0.0
    with suppress(psutil.Error):
        started = psutil.Process(pid)
        for process in (started, *started.children(recursive=True)):
            with suppress(psutil.Error):
                times = process.cpu_times()
                # A child that has ended counts for its parent.
                cpu += times.user + times.system + times.children_user + times.children_system
    return Progress(cpu, log.stat().st_size if log.exists() else 0)


def tail(log: Path, begun_at: int) -> str:
    """The last lines that the program wrote since its start, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(begun_at if begun_at <= log.stat().st_size else 0)
            lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        lines = []
    shown = "\n".join(f"    {line[:300]}" for line in lines) or "    (it wrote nothing)"
    return f"; the end of {log}:\n{shown}"


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)  # psutil checks that the id is still this process
