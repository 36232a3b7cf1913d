"""The order of the tests' files; and `--fast`: tests that start no process and open no connection, and are quick."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

import pytest

OUTSIDE = frozenset({
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "socket.bind",
    "socket.connect", "socket.sendto", "subprocess.Popen",
})  # fmt: skip
"""Events of Python's audit hooks (docs.python.org/3/library/audit_events.html) that a fast test may not raise."""
LONGEST = (
    "infra/test_real_cluster.py",
    "infra/test_aws_stack.py",
    "github/test_jobs.py",
    "infra/hosts/test_live_prometheus.py",
    "infra/test_aws_cli.py",
    "infra/monitoring/test_cluster.py",
    "infra/test_local_stack.py",
    "github/test_deploy.py",
    "infra/test_release.py",
    "infra/test_bootstrap.py",
    "ml/test_dvc.py",
    "image/test_image.py",
    "infra/hosts/test_live_grafana.py",
)
"""Files that take minutes, by their time: those come first, so that no worker ends long after the others."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only tests that aren't marked `slow`; they may start nothing")


def pytest_configure(config: pytest.Config) -> None:
    # Go programs, such as the engine, collect garbage less often: they live for seconds, and take a sixth less time.
    os.environ.setdefault("GOGC", "400")
    config.addinivalue_line("markers", "slow: starts a process, opens a connection, or takes more than a second")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))
    if not config.getoption("--fast"):
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
    items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on the process of the tests may start nothing; a hook of this kind can't be taken back."""
    # What is imported by now stays: looking through all of it for garbage took a twelfth of the time of some tests.
    gc.collect()
    gc.freeze()
    worker = hasattr(session.config, "workerinput")
    if session.config.getoption("--fast") and (worker or not session.config.getoption("numprocesses", None)):
        sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in OUTSIDE:
        raise RuntimeError(f"{event} {arguments[:2]}: a test that does this is marked `slow`")
