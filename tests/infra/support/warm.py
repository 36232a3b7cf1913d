"""A Python that has imported the SDKs already: commands, providers and policy packs of tests fork from it.

Importing pulumi_aws and its neighbours takes seconds, and one `atlas up` of a test starts eight processes that do. The
forked process is a real one: arguments, environment, folder, standard streams, signals and exit status are its own, and
`infra` is imported anew, from the folder in which the command runs. That the same things start without it is proved by
every test of a workflow's job, which runs `.venv/bin/atlas`.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

REPOSITORY = Path(__file__).parents[3]
PRELOADED = {
    "infra": (
        "infra.cli.__main__",
        "infra.environments.aws",
        "infra.environments.bootstrap",
        "infra.policy.pack",
        "pulumi.policy",
        "boto3",
        "tests.infra.recording.eks",
    ),
    "ml": (
        "ml.data_ingestion",
        "ml.data_preprocessing",
        "ml.feature_engineering",
        "ml.model_building",
        "ml.model_evaluation",
        "ml.register_model",
        "matplotlib.pyplot",
        "mlflow.pyfunc",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.model_registry.sqlalchemy_store",
        "sklearn.ensemble",
        "sklearn.linear_model",
        "sklearn.inspection",
        "skl2onnx",
    ),
}
"""What is imported before the first fork: for commands and providers, and for the pipeline's stages; the project itself
is forgotten again."""
OWN = ("infra", "ml", "service")
OBJECTS = tuple(
    f"kubernetes:{kind}"
    for kind in (
        "apps/v1:Deployment", "autoscaling/v2:HorizontalPodAutoscaler", "core/v1:ConfigMap", "core/v1:Namespace",
        "core/v1:Secret", "core/v1:Service", "core/v1:ServiceAccount", "networking.k8s.io/v1:NetworkPolicy",
        "policy/v1:PodDisruptionBudget", "rbac.authorization.k8s.io/v1:ClusterRole",
        "rbac.authorization.k8s.io/v1:ClusterRoleBinding", "rbac.authorization.k8s.io/v1:Role",
        "rbac.authorization.k8s.io/v1:RoleBinding",
    )
)  # fmt: skip
"""Kubernetes types that the program declares: their modules are imported, their shapes read."""


class Process:
    """A forked process, with what the tests use of subprocess.Popen."""

    def __init__(self, connection: socket.socket, arguments: Sequence[str]) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._connection = connection
        self._lines = connection.makefile("r")
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        """The exit status, as of subprocess; None while it runs."""
        with suppress(TimeoutError):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises TimeoutError after `timeout` seconds."""
        if self.returncode is None:
            with selectors.DefaultSelector() as ready:
                ready.register(self._connection, selectors.EVENT_READ)
                if not ready.select(timeout):
                    raise TimeoutError(f"{self.args} still runs after {timeout} s")
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _address(kind: str) -> str:
    """The server's socket; the server is started at the first call, and ends with this process."""
    path = str(Path(mkdtemp(prefix="atlas-warm-")) / "socket")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.infra.support.warm", kind, path],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,  # closed when this process ends, however it does
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", "the forking Python didn't start"
    atexit.register(_end, server, Path(path).parent)
    return path


def _end(server: "subprocess.Popen[bytes]", folder: Path) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.stdout.close()
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)


def start(module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], out: Path, err: Path) -> Process:
    """`python -m module arguments…` in a session of its own, with nothing on standard input."""
    with Path(os.devnull).open() as none, out.open("w") as told, err.open("w") as wrong:
        streams = [none.fileno(), told.fileno(), wrong.fileno()]
        request = {"module": module, "arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}
        return Process(_asked(_address("infra"), request, streams), [sys.executable, "-m", module, *arguments])


def _asked(address: str, request: Mapping[str, object], streams: Sequence[int]) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(address)
    body = json.dumps(request).encode()
    socket.send_fds(connection, [len(body).to_bytes(4, "big")], list(streams))
    connection.sendall(body)
    return connection


CLIENT = """#!{python} -ESs
import json, os, select, signal, socket, sys
parent, arguments = os.getppid(), sys.argv[1:]
while arguments and arguments[0] in ("-u", "-I", "-E"):
    arguments.pop(0)
at = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
try:
    if arguments[:1] != ["-m"]:
        raise OSError("a script")
    if arguments[1].startswith("infra.local"):
        raise OSError("its protocol buffers and the recording providers' can't be in one process")
    at.connect({address!r})
except OSError:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
request = {{"module": arguments[1], "arguments": arguments[2:], "cwd": os.getcwd(), "env": dict(os.environ)}}
body = json.dumps(request | {{"bound": True}}).encode()
socket.send_fds(at, [len(body).to_bytes(4, "big")], [0, 1, 2])
at.sendall(body)
lines = at.makefile()
pid = int(lines.readline())
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(pid, number))
while not select.select([at], [], [], 0.5)[0]:
    if os.getppid() != parent:
        sys.exit(1)  # the process watches for its parent's end, which is the server; who asked for it is this one's
code = int(lines.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
"""Stands for `python`: asks the server for the process, hands it the streams, passes signals on, ends as it does."""


@cache
def python(kind: str = "infra") -> Path:
    """A program that does `python -m MODULE …` by a fork, for whoever starts a Python by its path."""
    address = _address(kind)
    program = Path(address).with_name("python")
    program.write_text(CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    return program


# --- the server ---


def _read_shapes() -> None:
    """The shapes of what the recording providers check, which take a second to read from the SDKs' types."""
    from tests.infra.recording import rules, schema

    providers = (f"{schema.PROVIDER}{package}" for package in ("aws", "kubernetes", "eks", "random", "docker-build"))
    schema.load([*providers, *rules.REPLACES, *OBJECTS])


def _serve(kind: str, path: str) -> None:
    """Fork for each request; tell the process's id, then its exit status. Ends when standard input does."""
    for module in PRELOADED[kind]:
        importlib.import_module(module)
    if kind == "infra":
        _read_shapes()
    for module in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[module]
    # What is imported stays: a fork that looked through it for garbage would copy its memory, too.
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    os.write(1, b"ready\n")
    children: dict[int, _Child] = {}
    # The end of a child wakes the selector: pidfd_open would be simpler, but only Linux has it.
    woken, wakes = socket.socketpair()
    woken.setblocking(False)
    wakes.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    with selectors.DefaultSelector() as waiting:
        waiting.register(sys.stdin, selectors.EVENT_READ, None)
        waiting.register(listener, selectors.EVENT_READ, lambda: _accept(listener, waiting, children))
        waiting.register(woken, selectors.EVENT_READ, lambda: _reap(woken, waiting, children))
        while True:
            for key, _ in waiting.select():
                if key.data is None:
                    return
                key.data()


@dataclass
class _Child:
    """A forked process, and who asked for it."""

    connection: socket.socket
    bound: bool
    """Whether it is killed when who asked ends."""


def _accept(listener: socket.socket, waiting: selectors.BaseSelector, children: dict[int, _Child]) -> None:
    connection, _ = listener.accept()
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as body:
        request = json.loads(body.read(int.from_bytes(head, "big")))
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        connection.close()
        _become(request, streams)
    for stream in streams:
        os.close(stream)
    children[pid] = child = _Child(connection, bool(request.get("bound")))
    connection.sendall(f"{pid}\n".encode())

    def abandoned() -> None:
        waiting.unregister(connection)
        child.bound = False
        os.kill(pid, signal.SIGKILL)

    if child.bound:
        waiting.register(connection, selectors.EVENT_READ, abandoned)


def _reap(woken: socket.socket, waiting: selectors.BaseSelector, children: dict[int, _Child]) -> None:
    """Report the exit status of every child that has ended; several may have ended at one signal."""
    woken.recv(4096)
    for pid, child in list(children.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            continue
        del children[pid]
        if child.bound:
            waiting.unregister(child.connection)
        with suppress(OSError):
            child.connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        child.connection.close()


def _become(request: Mapping[str, object], streams: Sequence[int]) -> None:
    """Be what was asked for, to the end; never returns."""
    code = 1
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(str(request["cwd"]))
        environment: dict[str, str] = request["env"]  # type: ignore[assignment]
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        sys.stdout.reconfigure(line_buffering=True, write_through=True)  # type: ignore[union-attr]
        added = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
        sys.path[:1] = [str(request["cwd"]), *added]
        importlib.invalidate_caches()
        sys.argv = ["-m", *request["arguments"]]  # type: ignore[misc]
        runpy.run_module(str(request["module"]), run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        _finish(code)


def _finish(code: int) -> None:
    """End as the interpreter would: threads are waited for, and what was registered with atexit is called."""
    import threading

    with suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
