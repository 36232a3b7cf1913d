"""Which port each part of the local stack gets, and what is said of a port that another process uses."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.errors import LocalError
from infra.local import ports
from infra.local.supervisor import Program, Supervisord
from infra.settings import LocalSettings
from tests.infra.conftest import free_ports
from tests.infra.support.waiting import eventually

pytestmark = pytest.mark.slow

NEVER = threading.Event()


@contextmanager
def held(port: int, address: str = "127.0.0.1") -> Iterator[None]:
    """Another program listens on the port."""
    with socket.socket() as other:
        other.bind((address, port))
        other.listen()
        yield


@pytest.fixture
def defaults() -> dict[str, int]:
    """Ports that are free on this machine, in place of the settings' defaults."""
    return dict(zip(ports.PARTS, free_ports(len(ports.PARTS)), strict=True))


def local(defaults: dict[str, int], **named: int) -> LocalSettings:
    """Settings of a stack file that names the ports `named`."""
    values: dict[str, Any] = {f"{part}_port": port for part, port in (defaults | named).items()}
    return LocalSettings.model_construct({f"{part}_port" for part in named}, **values)


def test_free_ports_are_the_defaults_and_nothing_is_said(defaults: dict[str, int], tmp_path: Path) -> None:
    said: list[str] = []
    assert ports.choose_ports(local(defaults), tmp_path, said.append) == defaults
    assert said == []


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # AirPlay uses the second
def test_used_port_that_the_stack_file_does_not_name_is_replaced_and_said(
    defaults: dict[str, int], tmp_path: Path, address: str
) -> None:
    said: list[str] = []
    with held(defaults["service"], address):
        chosen = ports.choose_ports(local(defaults), tmp_path, said.append)
    assert {part: port for part, port in chosen.items() if part != "service"} == {
        part: port for part, port in defaults.items() if part != "service"
    }
    assert chosen["service"] not in defaults.values()
    assert said == [
        f"port {defaults['service']} is used by process {os.getpid()} ({psutil.Process().name()}): "
        f"service gets port {chosen['service']} (atlas:servicePort in the stack file sets another)"
    ]


def test_next_port_is_no_other_parts(defaults: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "in_use", lambda port, *_: "used" if port == defaults["service"] else None)
    named = defaults["service"] + 1
    chosen = ports.choose_ports(local(defaults, mlflow=named), tmp_path, lambda _: None)
    assert chosen["mlflow"] == named
    assert chosen["service"] > named
    assert len(set(chosen.values())) == len(ports.PARTS)


def test_used_port_that_the_stack_file_names_is_refused(defaults: dict[str, int], port: int, tmp_path: Path) -> None:
    told = rf"service needs port {port}, which process {os.getpid()} \(.*\) uses .*atlas:servicePort"
    with held(port), pytest.raises(LocalError, match=told):
        ports.choose_ports(local(defaults, service=port), tmp_path, lambda _: None)


def test_port_of_the_stacks_own_process_counts_as_free(
    defaults: dict[str, int], supervisord: Supervisord, program: Callable[..., Program], port: int
) -> None:
    supervisord.run(program(), NEVER)
    assert ports.own_ports(supervisord.home) == {"service": {port}}
    said: list[str] = []
    assert ports.choose_ports(local(defaults, service=port), supervisord.home, said.append)["service"] == port
    # It got this port because another process uses the default.
    with held(defaults["service"]):
        assert ports.choose_ports(local(defaults), supervisord.home, said.append)["service"] == port
    assert len(said) == 1
    # That other process has ended.
    eventually(lambda: not ports.in_use(defaults["service"]))
    assert ports.choose_ports(local(defaults), supervisord.home, said.append)["service"] == defaults["service"]


@pytest.mark.parametrize(("number", "named"), [(5000, True), (7000, True), (9090, False)])
def test_airplay_is_named_on_macos(monkeypatch: pytest.MonkeyPatch, number: int, named: bool) -> None:
    def denied(_: str) -> Any:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)  # on macOS only root sees others' connections
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(ports, "in_use", lambda *_: "Address already in use")
    with pytest.raises(LocalError) as raised:
        ports.refuse_used_port("service", f"http://127.0.0.1:{number}")
    assert ("AirPlay receiver (System Settings" in str(raised.value)) == named
