"""Processes under a real supervisord: they start healthy or not at all, heal, and end with nothing left."""

import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.errors import LocalError
from infra.local.supervisor import Program, Stack
from tests.infra.conftest import HEALTHY, listens, marked
from tests.infra.support.waiting import eventually

Build = Callable[..., Program]
NEVER = threading.Event()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    eventually(condition, patience=seconds, pause=0.05)


def test_program_is_started_and_healthy_when_run_returns(stack: Stack, program: Build, port: int) -> None:
    stack.run(program(), NEVER)
    assert stack.running("service")
    assert listens(port)


def test_supervisor_listens_on_no_port_and_its_socket_is_the_users_own(stack: Stack) -> None:
    pid = int(stack._call("supervisor.getPID"))
    assert psutil.Process(pid).net_connections("inet") == []
    assert stat.S_IMODE(stack.socket.stat().st_mode) == 0o700


def test_starting_the_supervisor_again_changes_nothing(stack: Stack, program: Build) -> None:
    stack.run(program(), NEVER)
    before = stack.states()["service"]["pid"]
    stack.start()
    assert stack.states()["service"]["pid"] == before


def test_killed_program_is_started_again(stack: Stack, program: Build) -> None:
    stack.run(program(), NEVER)
    first = int(stack.states()["service"]["pid"])
    until(lambda: stack.states()["service"]["statename"] == "RUNNING")
    psutil.Process(first).kill()
    until(lambda: stack.running("service") and stack.states()["service"]["pid"] not in (0, first))


def test_program_that_dies_at_start_is_told_with_its_last_words_and_removed(stack: Stack, program: Build) -> None:
    with pytest.raises(LocalError, match=r"service stopped at start(?s:.*)no model here") as raised:
        stack.run(program("import sys; sys.exit('no model here')"), NEVER)
    assert "service.log" in str(raised.value)
    assert stack.states() == {}
    assert list(stack.programs.iterdir()) == []


def test_only_the_last_start_is_quoted(stack: Stack, program: Build) -> None:
    for words in ("first words", "second words"):
        with pytest.raises(LocalError) as raised:
            stack.run(program(f"import sys; sys.exit({words!r})"), NEVER)
    assert "second words" in str(raised.value)
    assert "first words" not in str(raised.value)


def test_program_that_never_gets_healthy_is_stopped_after_its_time(stack: Stack, program: Build) -> None:
    with pytest.raises(LocalError, match=r"does not answer 200 within 1 s(?s:.*)still loading"):
        stack.run(program("import time; print('still loading', flush=True); time.sleep(99)", timeout=1), NEVER)
    assert stack.states() == {}


def test_program_can_be_run_after_it_failed(stack: Stack, program: Build) -> None:
    with pytest.raises(LocalError):
        stack.run(program("raise SystemExit(3)"), NEVER)
    stack.run(program(), NEVER)
    assert stack.running("service")


def test_missing_executable_is_named(stack: Stack, program: Build) -> None:
    missing = Program("service", ["/no/such/binary"], str(stack.home), {}, program().health_url, 5)
    with pytest.raises(LocalError, match=r"/no/such/binary"):
        stack.run(missing, NEVER)


def test_used_port_is_told_with_its_holder_and_the_setting_to_change(stack: Stack, program: Build, port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        told = rf"service needs port {port}, which process \d+ \(.*\) uses .*atlas:servicePort"
        with pytest.raises(LocalError, match=told):
            stack.run(program(), NEVER)
    assert stack.states() == {}


def test_interrupted_start_stops_the_program(stack: Stack, program: Build) -> None:
    interrupted = threading.Event()
    interrupted.set()
    with pytest.raises(LocalError, match="interrupted"):
        stack.run(program("import time; time.sleep(99)"), interrupted)
    assert stack.states() == {}


def test_environment_reaches_the_program_as_it_is(stack: Stack, program: Build) -> None:
    value = "it's 100 % back\\slash, comma; semicolon=1"
    code = f"import os, sys; sys.exit('same' if os.environ['X'] == {value!r} else 'got ' + os.environ['X'])"
    with pytest.raises(LocalError, match="same"):
        stack.run(program(code, environment={"X": value}), NEVER)


@pytest.mark.parametrize("value", ['a "quote"', "two\nlines", "a ;comment", "a #comment", "'quoted'"])
def test_environment_that_supervisord_cannot_pass_on_is_refused(stack: Stack, program: Build, value: str) -> None:
    with pytest.raises(LocalError, match=r"X=.*supervisord can't pass on"):
        stack.run(program(environment={"X": value}), NEVER)
    assert list(stack.programs.iterdir()) == []


def test_environment_is_not_in_the_process_list(stack: Stack, program: Build) -> None:
    stack.run(program(environment={"CAPSTONE_TEST": "a-token"}), NEVER)
    assert not [process for process in marked(stack.home) if "a-token" in " ".join(process.cmdline())]
    assert stat.S_IMODE((stack.programs / "service.conf").stat().st_mode) & 0o077 == 0


def test_remove_is_done_when_there_is_nothing(stack: Stack) -> None:
    stack.remove("service")
    stack.remove("service")
    assert stack.states() == {}


def test_stop_leaves_no_process_port_or_socket(stack: Stack, program: Build, port: int) -> None:
    stack.run(program(), NEVER)
    stack.stop()
    assert marked(stack.home) == []
    assert not listens(port)
    assert not stack.socket.exists()
    stack.stop()


def test_stack_whose_every_process_was_killed_is_seen_as_not_running(stack: Stack, program: Build) -> None:
    stack.run(program(), NEVER)
    for process in marked(stack.home):
        process.kill()
    until(lambda: marked(stack.home) == [])
    assert not stack.alive()
    assert not stack.running("service")


def test_program_that_ignores_the_polite_signal_is_ended_once_its_supervisor_is_gone(
    stack: Stack, program: Build, port: int
) -> None:
    stack.run(program(HEALTHY.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")), NEVER)
    psutil.Process(int(stack._call("supervisor.getPID"))).kill()
    until(lambda: not stack.alive())
    stack.stop()
    assert not listens(port)


def test_orphans_of_a_killed_supervisor_are_ended_and_their_port_serves_again(
    stack: Stack, program: Build, port: int
) -> None:
    stack.run(program(), NEVER)
    orphan = int(stack.states()["service"]["pid"])
    psutil.Process(int(stack._call("supervisor.getPID"))).kill()
    until(lambda: not stack.alive())
    assert listens(port)
    stack.start()
    assert not psutil.pid_exists(orphan)
    stack.run(program(), NEVER)
    assert stack.running("service")


def test_stop_ends_orphans_of_a_killed_supervisor(stack: Stack, program: Build, port: int) -> None:
    stack.run(program(), NEVER)
    psutil.Process(int(stack._call("supervisor.getPID"))).kill()
    until(lambda: not stack.alive())
    stack.stop()
    assert marked(stack.home) == []
    assert not listens(port)


def test_another_stacks_processes_are_left_alone(stack: Stack, program: Build, tmp_path: Path) -> None:
    stack.run(program(), NEVER)
    other = Stack(tmp_path / "other")
    assert other.end_orphans() == []
    assert stack.running("service")


def test_stack_in_a_deep_folder_runs_on_a_short_socket_of_its_own(tmp_path: Path, program: Build) -> None:
    deep = Stack(tmp_path / ("a" * 60) / ("b" * 60) / "local")
    deep.home.mkdir(parents=True)
    try:
        deep.start()
        deep.run(program(), NEVER)
        assert deep.running("service")
        assert deep.socket.parent != Stack(tmp_path / ("a" * 60) / ("c" * 60) / "local").socket.parent
    finally:
        deep.stop()
    assert not deep.socket.parent.exists()
