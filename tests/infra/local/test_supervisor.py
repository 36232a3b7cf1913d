"""Processes under a real supervisord: a start waits until they are healthy, they are restarted, and nothing is left."""

import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.errors import LocalError
from infra.local.supervisor import Program, Supervisord
from tests.infra.conftest import HEALTHY, listens, marked
from tests.infra.support.waiting import eventually

pytestmark = pytest.mark.slow

Build = Callable[..., Program]
NEVER = threading.Event()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    eventually(condition, patience=seconds, pause=0.05)


def test_program_is_started_and_healthy_when_run_returns(supervisord: Supervisord, program: Build, port: int) -> None:
    supervisord.run(program(), NEVER)
    assert supervisord.running("service")
    assert listens(port)


def test_supervisor_listens_on_no_port_and_its_socket_is_the_users_own(supervisord: Supervisord) -> None:
    pid = int(supervisord._call("supervisor.getPID"))
    assert psutil.Process(pid).net_connections("inet") == []
    assert stat.S_IMODE(supervisord.socket.stat().st_mode) == 0o700


def test_starting_the_supervisor_again_changes_nothing(supervisord: Supervisord, program: Build) -> None:
    supervisord.run(program(), NEVER)
    before = supervisord.states()["service"]["pid"]
    supervisord.start()
    assert supervisord.states()["service"]["pid"] == before


def test_killed_program_is_started_again(supervisord: Supervisord, program: Build) -> None:
    supervisord.run(program(), NEVER)
    first = int(supervisord.states()["service"]["pid"])
    until(lambda: supervisord.states()["service"]["statename"] == "RUNNING")
    psutil.Process(first).kill()
    until(lambda: supervisord.running("service") and supervisord.states()["service"]["pid"] not in (0, first))
    assert supervisord.running("service")


def test_program_that_dies_at_start_is_told_with_its_last_words_and_removed(
    supervisord: Supervisord, program: Build
) -> None:
    with pytest.raises(LocalError, match=r"service stopped at start(?s:.*)no model here") as raised:
        supervisord.run(program("import sys; sys.exit('no model here')"), NEVER)
    assert "service.log" in str(raised.value)
    assert supervisord.states() == {}
    assert list(supervisord.programs.iterdir()) == []


def test_only_the_last_start_is_quoted(supervisord: Supervisord, program: Build) -> None:
    for words in ("first words", "second words"):
        with pytest.raises(LocalError) as raised:
            supervisord.run(program(f"import sys; sys.exit({words!r})"), NEVER)
    assert "second words" in str(raised.value)
    assert "first words" not in str(raised.value)


def test_program_that_never_gets_healthy_is_stopped_after_its_time(supervisord: Supervisord, program: Build) -> None:
    with pytest.raises(LocalError, match=r"does not answer 200 within 1 s(?s:.*)still loading"):
        supervisord.run(program("import time; print('still loading', flush=True); time.sleep(99)", timeout=1), NEVER)
    assert supervisord.states() == {}


def test_program_that_works_before_it_listens_gets_more_time(
    supervisord: Supervisord, program: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow's first start does on a slow machine."""
    monkeypatch.setattr("infra.local.supervisor.LONGEST", 1000)
    busy = "import time\nwhile time.process_time() < 3: pass\n"
    supervisord.run(program(busy + HEALTHY, timeout=2), NEVER)
    assert supervisord.running("service")


def test_program_that_works_without_end_is_stopped(
    supervisord: Supervisord, program: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.local.supervisor.LONGEST", 2)
    with pytest.raises(LocalError, match="does not answer 200 within 1 s"):
        supervisord.run(program("while True: pass", timeout=1), NEVER)
    assert supervisord.states() == {}


def test_program_that_answers_but_is_not_ready_gets_no_more_time(supervisord: Supervisord, program: Build) -> None:
    """Its log grows by our own questions: that is no progress."""
    with pytest.raises(LocalError, match=r"does not answer 200 within 1 s(?s:.*)GET /health"):
        supervisord.run(program(HEALTHY.replace("200", "503"), timeout=1), NEVER)


def test_program_can_be_run_after_it_failed(supervisord: Supervisord, program: Build) -> None:
    with pytest.raises(LocalError):
        supervisord.run(program("raise SystemExit(3)"), NEVER)
    supervisord.run(program(), NEVER)
    assert supervisord.running("service")


def test_missing_executable_is_named(supervisord: Supervisord, program: Build) -> None:
    missing = Program("service", ["/no/such/binary"], str(supervisord.home), {}, program().health_url, 5)
    with pytest.raises(LocalError, match=r"/no/such/binary"):
        supervisord.run(missing, NEVER)


def test_used_port_is_told_with_its_holder_and_the_setting_to_change(
    supervisord: Supervisord, program: Build, port: int
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        told = rf"service needs port {port}, which process \d+ \(.*\) uses .*atlas:servicePort"
        with pytest.raises(LocalError, match=told):
            supervisord.run(program(), NEVER)
    assert supervisord.states() == {}


def test_interrupted_start_stops_the_program(supervisord: Supervisord, program: Build) -> None:
    interrupted = threading.Event()
    interrupted.set()
    with pytest.raises(LocalError, match="interrupted"):
        supervisord.run(program("import time; time.sleep(99)"), interrupted)
    assert supervisord.states() == {}


def test_environment_reaches_the_program_as_it_is(supervisord: Supervisord, program: Build) -> None:
    value = "it's 100 % back\\slash, comma; semicolon=1"
    code = f"import os, sys; sys.exit('same' if os.environ['X'] == {value!r} else 'got ' + os.environ['X'])"
    with pytest.raises(LocalError, match="same"):
        supervisord.run(program(code, environment={"X": value}), NEVER)


@pytest.mark.parametrize("value", ['a "quote"', "two\nlines", "a ;comment", "a #comment", "'quoted'"])
def test_environment_that_supervisord_cannot_pass_on_is_refused(
    supervisord: Supervisord, program: Build, value: str
) -> None:
    with pytest.raises(LocalError, match=r"X=.*supervisord can't pass on"):
        supervisord.run(program(environment={"X": value}), NEVER)
    assert list(supervisord.programs.iterdir()) == []


def test_environment_is_not_in_the_process_list(supervisord: Supervisord, program: Build) -> None:
    supervisord.run(program(environment={"CAPSTONE_TEST": "a-token"}), NEVER)
    assert not [process for process in marked(supervisord.home) if "a-token" in " ".join(process.cmdline())]
    assert stat.S_IMODE((supervisord.programs / "service.conf").stat().st_mode) & 0o077 == 0


def test_remove_is_done_when_there_is_nothing(supervisord: Supervisord) -> None:
    supervisord.remove("service")
    supervisord.remove("service")
    assert supervisord.states() == {}


def test_stop_leaves_no_process_port_or_socket(supervisord: Supervisord, program: Build, port: int) -> None:
    supervisord.run(program(), NEVER)
    supervisord.stop()
    assert marked(supervisord.home) == []
    assert not listens(port)
    assert not supervisord.socket.exists()
    supervisord.stop()


def test_stack_whose_every_process_was_killed_is_seen_as_not_running(supervisord: Supervisord, program: Build) -> None:
    supervisord.run(program(), NEVER)
    for process in marked(supervisord.home):
        process.kill()
    until(lambda: marked(supervisord.home) == [])
    assert not supervisord.alive()
    assert not supervisord.running("service")


def test_program_that_ignores_the_polite_signal_is_ended_once_its_supervisor_is_gone(
    supervisord: Supervisord, program: Build, port: int
) -> None:
    supervisord.run(program(HEALTHY.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")), NEVER)
    psutil.Process(int(supervisord._call("supervisor.getPID"))).kill()
    until(lambda: not supervisord.alive())
    supervisord.stop()
    assert not listens(port)


def test_orphans_of_a_killed_supervisor_are_ended_and_their_port_serves_again(
    supervisord: Supervisord, program: Build, port: int
) -> None:
    supervisord.run(program(), NEVER)
    orphan = int(supervisord.states()["service"]["pid"])
    psutil.Process(int(supervisord._call("supervisor.getPID"))).kill()
    until(lambda: not supervisord.alive())
    assert listens(port)
    supervisord.start()
    assert not psutil.pid_exists(orphan)
    supervisord.run(program(), NEVER)
    assert supervisord.running("service")


def test_stop_ends_orphans_of_a_killed_supervisor(supervisord: Supervisord, program: Build, port: int) -> None:
    supervisord.run(program(), NEVER)
    psutil.Process(int(supervisord._call("supervisor.getPID"))).kill()
    until(lambda: not supervisord.alive())
    supervisord.stop()
    assert marked(supervisord.home) == []
    assert not listens(port)


def test_another_stacks_processes_are_left_alone(supervisord: Supervisord, program: Build, tmp_path: Path) -> None:
    supervisord.run(program(), NEVER)
    other = Supervisord(tmp_path / "other")
    assert other.end_orphans() == []
    assert supervisord.running("service")


def test_stack_in_a_deep_folder_runs_on_a_short_socket_of_its_own(tmp_path: Path, program: Build) -> None:
    deep = Supervisord(tmp_path / ("a" * 60) / ("b" * 60) / "local")
    deep.home.mkdir(parents=True)
    try:
        deep.start()
        deep.run(program(), NEVER)
        assert deep.running("service")
        assert deep.socket.parent != Supervisord(tmp_path / ("a" * 60) / ("c" * 60) / "local").socket.parent
    finally:
        deep.stop()
    assert not deep.socket.parent.exists()


@pytest.mark.parametrize("name", ["My Projekt é", "[b]*?", "it's 100 %", "a;b#c"])
def test_stack_runs_in_a_folder_of_any_name(tmp_path: Path, program: Build, name: str) -> None:
    """supervisord splits an include's pattern at spaces, and reads brackets in it: it would find no program."""
    anywhere = Supervisord(tmp_path / name / "local")
    anywhere.home.mkdir(parents=True)
    try:
        anywhere.start()
        anywhere.run(program(), NEVER)
        assert anywhere.running("service")
    finally:
        anywhere.stop()


@pytest.mark.parametrize("name", ['a "quoted" folder', "a ;comment", "two\nlines"])
def test_folder_whose_name_supervisord_cannot_read_is_refused(tmp_path: Path, name: str) -> None:
    anywhere = Supervisord(tmp_path / name)
    with pytest.raises(LocalError, match=r"supervisord can't read a path .*: move the checkout"):
        anywhere.start()


def test_what_supervisord_refuses_is_told_without_the_librarys_exception(
    supervisord: Supervisord, program: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = supervisord._call

    def refusing(method: str, *arguments: object) -> object:
        return call(method, *(["no-such-program"] if method == "supervisor.addProcessGroup" else arguments))

    monkeypatch.setattr(Supervisord, "_call", lambda _, *arguments: refusing(*arguments))
    with pytest.raises(LocalError, match=r"supervisord can't run service \(BAD_NAME: no-such-program\): see .*logs"):
        supervisord.run(program(), NEVER)
    assert list(supervisord.programs.iterdir()) == []


SLOW_TO_STOP = HEALTHY.replace("lambda *_: sys.exit(0)", "lambda *_: (__import__('time').sleep(2), sys.exit(0))")


def test_supervisor_rests_while_a_program_takes_its_time_to_stop(
    supervisord: Supervisord, program: Build, port: int
) -> None:
    """In `stopProcess` with a wait, supervisord 4.3 looks whether the program has stopped in an endless loop."""
    supervisord.run(program(SLOW_TO_STOP), NEVER)
    process = psutil.Process(int(supervisord._call("supervisor.getPID")))
    before = sum(process.cpu_times()[:2])
    supervisord.remove("service")
    assert sum(process.cpu_times()[:2]) - before < 0.5
    assert not listens(port)
