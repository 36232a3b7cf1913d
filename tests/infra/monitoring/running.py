"""Runs real Prometheus, Alertmanager, node_exporter and the service on loopback, and queries them."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.infra.monitoring.tools.build import tool

PATIENCE = 60
"""Time limit, in seconds, for waiting."""
BUILD = "build it with `.venv/bin/python -m tests.infra.monitoring.tools.build`"


def hosts_own(name: str) -> str:
    """A program in the version of the hosts; skips the test if it hasn't been built."""
    path = tool(name)
    if path is None:
        pytest.skip(f"no {name} of the hosts' version: {BUILD}")
    return str(path)


def on_path(name: str) -> str:
    """The machine's own program, such as Debian's; skips the test if there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not on PATH: `apt-get install prometheus`")
    return path


EITHER: Mapping[str, Callable[[str], str]] = {"machine": on_path, "hosts": hosts_own}
"""The local stack uses the machine's Prometheus, an AWS stack the version that its host installs."""


@contextmanager
def running(folder: Path, command: list[str], ready: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers at `ready`; stopped at the end. Its output is in a file in `folder`, and in failures."""
    log = folder / f"{Path(command[0]).name}-{urllib.parse.urlsplit(ready).port}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=file, stderr=file)
    try:
        end = time.monotonic() + PATIENCE
        while not _answers(ready):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def service(folder: Path, bundle: Path, port: int, **environment: str) -> Any:
    """The real service, two workers as on a local stack."""
    return running(
        folder,
        [sys.executable, "-m", "service"],
        f"http://127.0.0.1:{port}/health/ready",
        MODEL_URI=str(bundle),
        HOST="127.0.0.1",
        PORT=str(port),
        WORKERS="2",
        **environment,
    )


def prometheus(folder: Path, binary: str, config: str, port: int) -> Any:
    """Prometheus with this configuration."""
    (folder / "prometheus.yml").write_text(config)
    return running(
        folder,
        [
            binary,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        f"http://127.0.0.1:{port}/-/ready",
    )


def text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as response:
        return str(response.read().decode())


def api(port: int, path: str, **parameters: str) -> Any:
    """`data` in an answer of Prometheus's API; fails with its error message."""
    address = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        return json.loads(text(address))["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None


def query(port: int, expression: str) -> dict[str, float]:
    """Labels as text -> value, without values that aren't numbers."""
    found = api(port, "query", query=expression)["result"]
    values = {json.dumps(series["metric"], sort_keys=True): float(series["value"][1]) for series in found}
    return {labels: value for labels, value in values.items() if value == value}  # noqa: PLR0124 - NaN


def _answers(url: str) -> bool:
    try:
        text(url)
    except OSError:
        return False
    return True
