"""Builds images and runs containers of the service, with the machine's Docker engine."""

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("Dockerfile", ".dockerignore", "requirements", "ml", "service")
"""The files that the image is built from, besides the bundle."""
LOCAL_BASE = "127.0.0.1:5555/python:3.11-slim"
"""Tried before the Dockerfile's own base, so that a machine without the internet can test too."""
PATIENCE = 60
"""Time limit, in seconds, for waiting."""


class MissingError(Exception):
    """What is missing on this machine to build and run images."""


class FailedError(Exception):
    """A docker command that failed; the message is the end of its output."""


def docker(*arguments: str | Path, given: str | None = None, timeout: float = 120) -> str:
    """What `docker ARGUMENTS` prints on standard output. Raises FailedError."""
    done = subprocess.run(
        ["docker", *map(str, arguments)], input=given, capture_output=True, text=True, check=False, timeout=timeout
    )
    if done.returncode != 0:
        raise FailedError(f"{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


@cache
def base_image() -> str:
    """ATLAS_TEST_BASE_IMAGE, else the local registry's, else the Dockerfile's own.

    Raises MissingError when there's no Docker engine with buildx, or it can reach none of these.
    """
    if shutil.which("docker") is None:
        raise MissingError("no docker on PATH")
    try:
        docker("buildx", "inspect", "--bootstrap")
        docker("version", "--format", "{{.Server.Version}}")
    except FailedError as error:
        raise MissingError(f"no Docker engine with buildx: {error}") from None
    given = os.environ.get("ATLAS_TEST_BASE_IMAGE")
    if given:
        return given
    (own,) = re.findall(r"(?m)^ARG BASE_IMAGE=(\S+)$", (REPOSITORY / "Dockerfile").read_text())
    for image in (LOCAL_BASE, own):
        with suppress(FailedError):
            docker("buildx", "imagetools", "inspect", image)
            return str(image)
    raise MissingError(f"no base image can be reached ({own}): name one in ATLAS_TEST_BASE_IMAGE")


def lay_out(context: Path, bundle: Path) -> Path:
    """A build context with this bundle instead of DVC's."""
    context.mkdir(parents=True)
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, context / name)
    shutil.copytree(bundle, context / "models" / "bundle")
    return context


def build(context: Path, *options: str, target: str = "slim", arguments: Mapping[str, str] | None = None) -> None:
    """`docker buildx build` with the tests' base image; `options` set the output. Raises FailedError."""
    given = {"BASE_IMAGE": base_image()} | dict(arguments or {})
    pairs = [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]
    docker("buildx", "build", "--progress=plain", "--target", target, *pairs, *options, context, timeout=900)


@dataclass(frozen=True, slots=True)
class Container:
    """A container with the service's port published on loopback."""

    id: str
    started: float
    """The time (time.monotonic) just before `docker run`."""

    @property
    def port(self) -> int:
        return int(docker("port", self.id, "5000/tcp").splitlines()[0].rpartition(":")[2])

    def request(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def predict(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The answer for a row; an assertion fails if there is no answer."""
        status, text = self.request("POST", "/predict", {"rows": [dict(row)]})
        assert status == 200, text
        answer: dict[str, Any] = json.loads(text)
        return answer

    def wait_ready(self) -> float:
        """Seconds from `docker run` to the first ready answer.

        Raises FailedError with the log if the container ends.
        """
        port = 0
        while True:
            with suppress(OSError, http.client.HTTPException, FailedError):
                port = port or self.port
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                try:
                    connection.request("GET", "/health/ready")
                    if connection.getresponse().status == 200:
                        return time.monotonic() - self.started
                finally:
                    connection.close()
            if not self.state()["Running"] or time.monotonic() - self.started > PATIENCE:
                raise FailedError(f"not ready: {self.state()}\n{self.log()}")
            time.sleep(0.02)

    def state(self) -> dict[str, Any]:
        """Status, ExitCode, OOMKilled, Health …"""
        found: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", self.id))
        return found

    def wait_end(self) -> int:
        """The exit code, after the container has ended."""
        return int(docker("wait", self.id, timeout=PATIENCE))

    def log(self) -> str:
        """Its output on both streams."""
        done = subprocess.run(["docker", "logs", self.id], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def execute(self, *command: str) -> str:
        """Standard output of a command in the container. Raises FailedError."""
        return docker("exec", self.id, *command)

    def stop(self) -> float:
        """Seconds that `docker stop` took, with its default grace period of 10 seconds."""
        begun = time.monotonic()
        docker("stop", self.id)
        return time.monotonic() - begun


@contextmanager
def running(image: str, *options: str, **environment: object) -> Iterator[Container]:
    """A detached container of the image; removed at the end."""
    variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
    started = time.monotonic()
    container = Container(
        docker("run", "--detach", "--publish", "127.0.0.1::5000", *options, *variables, image), started
    )
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container.id)


def inspect(image: str) -> dict[str, Any]:
    """The result of `docker image inspect`."""
    (found,) = json.loads(docker("image", "inspect", image))
    return dict(found)
