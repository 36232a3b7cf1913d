"""Has the service take over a new bundle without a restart: SIGHUP, then only new workers answer, with that bundle."""

import json
import signal
import threading
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from infra.errors import LocalError
from infra.local.supervisor import Supervisord
from infra.loopback import open_url

REFUSED = "refused"
"""What the service's log line says when it keeps its old bundle."""


def reload(
    supervisord: Supervisord, name: str, health_url: str, wanted: str, timeout: float, interrupted: threading.Event
) -> None:
    """Send SIGHUP to the program; wait until its health URL's answer contains `wanted`, and its old workers have ended.

    Raises LocalError with the reason when the program refuses, or takes longer than `timeout` seconds.
    """
    log = supervisord.logs / f"{name}.log"
    begun_at = log.stat().st_size if log.exists() else 0
    workers: list[psutil.Process] = []  # until they have ended, one of them may answer a request with the old bundle
    with suppress(psutil.Error):
        first = psutil.Process(int(supervisord.states()[name]["pid"]))
        workers = first.children()
        first.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + timeout
    while not says(health_url, wanted) or any(worker.is_running() for worker in workers):
        if reason := _refusal(log, begun_at):
            raise LocalError(f"{name} keeps its old bundle, because it refuses the new one: {reason}")
        if interrupted.is_set():
            raise LocalError(f"{name}: interrupted while it loaded the new bundle")
        if time.monotonic() > deadline:
            raise LocalError(
                f"{name} has not loaded the new bundle within {timeout:g} s (atlas:startTimeout): see {log}"
            )
        time.sleep(0.1)


def says(url: str, wanted: str) -> bool:
    """Whether the answer of the program's health URL contains `wanted`."""
    try:
        with open_url(url, timeout=5) as response:
            return wanted in response.read().decode(errors="replace")
    except (OSError, HTTPException):
        return False


def _refusal(log: Path, begun_at: int) -> str | None:
    """The reason in the log line with which the service refused a bundle since then."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(begun_at if begun_at <= log.stat().st_size else 0)
        for text in file.read().decode(errors="replace").splitlines():
            with suppress(ValueError):
                line: Any = json.loads(text)
                if isinstance(line, dict) and REFUSED in str(line.get("message")):
                    return str(line.get("reason"))
    return None
