"""A stack's supervisord: starts it, adds and removes programs, reads their state, stops everything."""

import hashlib
import http.client
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
from supervisor.xmlrpc import SupervisorTransport

from infra.errors import LocalError
from infra.local.ports import accepts, refuse_used_port
from infra.local.processes import MARK, PROGRAM, Progress, end, marked, progress, tail
from infra.loopback import answers

UNREACHABLE = (OSError, http.client.HTTPException, xmlrpc.client.Error)
"""The exceptions of a call to a supervisor that doesn't run, or that refuses the call."""
STOP_SECONDS = 40
"""Seconds that a process may take to stop; the service drains for up to 30."""
UNREADABLE = ('"', "\n", " ;", " #")
"""What no value in supervisord's configuration can contain: it has no escape for a quote, and " ;" starts a comment."""
WRITING = threading.Lock()
"""Held while supervisord's configuration is written and read: programs start in parallel, in threads of one process."""
LONGEST = 10
"""A start may take as many times its timeout, however busy the process is."""
SOCKET_PATH_LIMIT = 100
"""A Unix socket's path can have 107 bytes; supervisord appends its process id while it starts."""


@dataclass(frozen=True, slots=True)
class Program:
    """A process to run."""

    name: str
    command: Sequence[str]
    working_directory: str
    environment: Mapping[str, str]
    health_url: str
    timeout: float
    """Seconds within which it must become healthy, or make progress towards it."""
    folders: Sequence[str] = ()


class Supervisord:
    """The supervisord of the stack whose files are below `home`, and the programs that it runs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.programs = home / "programs"
        self.logs = home / "logs"
        self.config = home / "supervisord.conf"
        path = home / "supervisor.sock"
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            # The checkout's path is long: use a short path, unique to this stack, in a folder only for this user.
            key = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
            path = Path(tempfile.gettempdir()) / f"atlas-{os.getuid()}-{key}" / "supervisor.sock"
        self.socket = path

    # --- supervisord itself ---

    def start(self) -> None:
        """Start supervisord, after ending the processes that an earlier supervisord left behind."""
        if self.alive():
            return
        if any(text in str(self.home) for text in UNREADABLE):
            raise LocalError(
                f"{self.home}: supervisord can't read a path that contains a double quote, a line break, or ; or # "
                "after a space: move the checkout to another folder"
            )
        self.end_orphans()
        for folder in (self.programs, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        for old in self.programs.glob("*.conf"):
            old.unlink()
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.socket.parent != self.home and self.socket.parent.stat().st_uid != os.getuid():
            raise LocalError(f"{self.socket.parent} belongs to another user: remove it")
        with WRITING:
            self._compose()
        command = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(self.config)]
        started = subprocess.run(
            command,
            cwd=self.home,
            env=os.environ | {MARK: str(self.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            check=False,
        )
        if started.returncode:
            raise LocalError(f"supervisord does not start: {started.stdout.strip()[-500:]}")
        deadline = time.monotonic() + 15
        while not self.alive():
            if time.monotonic() > deadline:
                raise LocalError(f"supervisord does not answer on {self.socket}: see {self.logs}/supervisord.log")
            time.sleep(0.05)

    def alive(self) -> bool:
        """Whether supervisord answers."""
        try:
            return bool(self._call("supervisor.getState")["statename"] == "RUNNING")
        except UNREACHABLE:
            return False

    def stop(self) -> None:
        """Stop supervisord and every process that it started."""
        try:
            pid = int(self._call("supervisor.getPID"))
            self._call("supervisor.shutdown")
            psutil.wait_procs([psutil.Process(pid)], timeout=STOP_SECONDS + 10)
        except (*UNREACHABLE, psutil.Error):
            pass  # it doesn't run, or has just ended
        self.end_orphans()
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.home:
            shutil.rmtree(self.socket.parent, ignore_errors=True)

    def end_orphans(self, name: str | None = None) -> list[int]:
        """End this stack's processes (of program `name`, or all) that run without a supervisor; returns their ids."""
        return end(marked(self.home, name))

    # --- its programs ---

    def run(self, program: Program, interrupted: threading.Event) -> None:
        """Start or restart the program, and wait until it is healthy.

        If it doesn't become healthy, stops it and raises LocalError with the cause and the end of its log.
        """
        if not self.alive():
            raise LocalError("supervisord is not running: run `atlas up --stack local` again")
        self.remove(program.name)
        self.end_orphans(program.name)
        refuse_used_port(program.name, program.health_url)
        for folder in program.folders:
            Path(folder).mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{program.name}.log"
        begun_at = log.stat().st_size if log.exists() else 0
        try:
            with WRITING:
                self._write(program, log)
                self._compose()
                self._call("supervisor.reloadConfig")
                self._call("supervisor.addProcessGroup", program.name)
            self._wait_until_healthy(program, log, begun_at, interrupted)
        except BaseException as error:
            self.remove(program.name)
            if isinstance(error, UNREACHABLE):
                raise LocalError(f"supervisord can't run {program.name} ({_reason(error)}): see {self.logs}") from None
            raise

    def remove(self, name: str) -> None:
        """Stop the program and remove it from supervisord; nothing happens if it doesn't exist."""
        (self.programs / f"{name}.conf").unlink(missing_ok=True)
        with suppress(*UNREACHABLE):  # the program or the supervisor doesn't run
            # supervisord's own wait would keep a whole CPU busy, so this loop waits instead.
            self._call("supervisor.stopProcess", name, False)
            while self._call("supervisor.getProcessInfo", name)["statename"] == "STOPPING":
                time.sleep(0.05)
        with suppress(*UNREACHABLE):
            self._call("supervisor.removeProcessGroup", name)
        if not self.alive():
            self.end_orphans(name)

    def running(self, name: str) -> bool:
        """Whether the program runs, or is being restarted."""
        try:
            state = self._call("supervisor.getProcessInfo", name)["statename"]
        except UNREACHABLE:
            return False
        return bool(state in ("RUNNING", "STARTING"))

    def states(self) -> dict[str, dict[str, Any]]:
        """supervisord's report about each program: `statename`, `pid`, `description`…; empty if it doesn't run."""
        try:
            infos = cast("list[dict[str, Any]]", self._call("supervisor.getAllProcessInfo"))
        except UNREACHABLE:
            return {}
        return {str(info["name"]): info for info in infos}

    # --- inside ---

    def _compose(self) -> None:
        """Write supervisord's configuration: its own part, and the programs'.

        It is a single file, because supervisord splits the pattern of an include at white space, and reads brackets in
        it: it would find no program of a checkout whose path has such characters.
        """
        own = f"""[unix_http_server]
file={_escaped(self.socket)}
chmod=0700
[supervisord]
logfile={_escaped(self.logs / "supervisord.log")}
logfile_maxbytes=1MB
logfile_backups=1
pidfile={_escaped(self.home / "supervisord.pid")}
childlogdir={_escaped(self.logs)}
minfds=1024
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
        fresh = self.config.with_name(f".{self.config.name}.new")
        fresh.touch(mode=0o600)  # the environment of a program may hold a token
        fresh.write_text(own + "".join(file.read_text() for file in sorted(self.programs.glob("*.conf"))))
        fresh.replace(self.config)

    def _write(self, program: Program, log: Path) -> None:
        environment = dict(program.environment) | {MARK: str(self.home), PROGRAM: program.name}
        pairs = ",".join(f'{name}="{_quoted(name, value)}"' for name, value in environment.items())
        config = self.programs / f"{program.name}.conf"
        config.touch(mode=0o600)  # the environment may hold a token
        config.write_text(
            # supervisord expands the log's path twice.
            f"""[program:{program.name}]
command={_escaped(shlex.join(program.command))}
directory={_escaped(program.working_directory)}
environment={pairs}
autostart=true
autorestart=true
startsecs=2
startretries=3
stopasgroup=true
killasgroup=true
stopwaitsecs={STOP_SECONDS}
redirect_stderr=true
stdout_logfile={_escaped(_escaped(log))}
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""
        )

    def _wait_until_healthy(self, program: Program, log: Path, begun_at: int, interrupted: threading.Event) -> None:
        """Wait while the program starts: a process that doesn't listen yet, but works or writes, gets more time."""
        begun = time.monotonic()
        deadline, before = begun + program.timeout, Progress()
        while True:
            info = self._call("supervisor.getProcessInfo", program.name)
            if info["statename"] in ("BACKOFF", "FATAL", "EXITED"):
                # The first failure counts: a further start would fail in the same way, while the user waits.
                raise LocalError(
                    f"{program.name} stopped at start ({info['spawnerr'] or info['description']}){tail(log, begun_at)}"
                )
            if info["statename"] in ("RUNNING", "STARTING") and answers(program.health_url):
                return
            if interrupted.is_set():
                raise LocalError(f"{program.name}: interrupted while it started")
            if time.monotonic() > deadline:
                now = progress(int(info["pid"]), log)
                if (
                    not accepts(program.health_url)
                    and now.since(before, program.timeout)
                    and time.monotonic() - begun < LONGEST * program.timeout
                ):
                    deadline, before = time.monotonic() + program.timeout, now
                    continue
                raise LocalError(
                    f"{program.name} runs but {program.health_url} does not answer 200 within {program.timeout:g} s "
                    f"(atlas:startTimeout) of its last progress{tail(log, begun_at)}"
                )
            time.sleep(0.1)

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy, method)(*arguments)
        finally:
            transport.close()


def _reason(error: BaseException) -> str:
    """What supervisord answered, without the name of the library's exception."""
    return str(error.faultString if isinstance(error, xmlrpc.client.Fault) else error)


def _escaped(text: object) -> str:
    """The text for supervisord's configuration, in which % starts an expansion."""
    return str(text).replace("%", "%%")


def _quoted(name: str, value: str) -> str:
    """The value of a variable."""
    if any(text in value for text in UNREADABLE) or value.strip("'") != value:
        raise LocalError(f'{name}={value!r}: supervisord can\'t pass on a quote, a line break, " ;" or " #"')
    return _escaped(value)
