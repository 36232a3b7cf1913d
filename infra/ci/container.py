"""The smoke test of an image: starts it as a cluster would, requests a prediction, stops it."""

import http.client
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.components.workload.pods import GRACE_SECONDS
from infra.deployment.smoke import predict
from infra.errors import StepError, one_line
from infra.names import SERVICE_PORT, SERVICE_READY

READY_SECONDS = 90
"""The same time limit as the Deployment's startup probe."""
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108
"""The restrictions of the Deployment and of restricted Pod Security; the user is the image's default user."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The result of the smoke test."""

    ready: float
    """Seconds from its start to the first ready answer."""
    answer: Any
    """Its prediction for the schema's example row."""
    stopped: float
    """Seconds from SIGTERM to its end."""


def smoke(image: str) -> Tried:
    """Start the image on a free loopback port, wait until it is ready, request a prediction, stop it.

    Raises StepError with the end of its log when it doesn't become ready, gives no prediction, or must be killed.
    """
    name = _docker("run", "--detach", "--publish", f"127.0.0.1::{SERVICE_PORT}", *HARDENED, image)
    try:
        begun = time.monotonic()
        port = _port(name)
        while port is None or not _is_ready(port):
            if time.monotonic() - begun > READY_SECONDS or not _runs(name):
                raise StepError(f"{image} isn't ready{_why(name)}")
            time.sleep(0.2)
            port = _port(name)
        ready = time.monotonic() - begun
        try:
            _, answer = predict(lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=10))
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            raise StepError(f"{image} is ready but gives no prediction: {error}{_why(name)}") from None
        told = time.monotonic()
        _docker("stop", "--time", str(GRACE_SECONDS), name)
        stopped = time.monotonic() - told
        code = _docker("inspect", "--format", "{{.State.ExitCode}}", name)
        if code != "0":
            raise StepError(f"{image} exited with status {code} after SIGTERM (137: it had to be killed){_why(name)}")
        return Tried(ready, answer, stopped)
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def _port(name: str) -> int | None:
    """The published port; None if the container has ended."""
    ports = json.loads(_docker("inspect", "--format", "{{json .NetworkSettings.Ports}}", name)) or {}
    mapped = ports.get(f"{SERVICE_PORT}/tcp")
    return int(mapped[0]["HostPort"]) if mapped else None


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", SERVICE_READY)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _runs(name: str) -> bool:
    return _docker("inspect", "--format", "{{.State.Running}}", name) == "true"


def _why(name: str) -> str:
    done = subprocess.run(["docker", "logs", "--tail", "20", name], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip()
    return f"; its last log lines:\n{lines}" if lines else ""


def _docker(*arguments: str) -> str:
    command: Sequence[str] = ["docker", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GRACE_SECONDS + 120, check=False)
    except FileNotFoundError:
        raise StepError("docker is not on PATH; it is needed to run images") from None
    if done.returncode != 0:
        raise StepError(f"docker {arguments[0]}: {one_line(done.stderr)[-400:]}")
    return done.stdout.strip()
