"""Free ports, stand-in processes, and a temporary copy of the repository with a small bundle."""

import itertools
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from moto.server import ThreadedMotoServer

from infra.local.processes import MARK
from infra.local.supervisor import Program, Supervisord
from infra.tools import cache_folder
from tests.bundles import EXAMPLE, make_bundle
from tests.infra.support import warm
from tests.infra.support.account import Account, played
from tests.infra.support.homes import home_without_logs

REPOSITORY = Path(__file__).parents[2]

HEALTHY = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
"""A server that is healthy at once."""


def _own_ports() -> Iterator[int]:
    """Ports for this one of pytest-xdist's workers, from a different one on in each run.

    They are below those that the system gives to connections: a connection of another test could take one of those
    before the program that is to listen there has started.
    """
    first, number = 12_000 + 4_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), 4_000
    for turn in itertools.count(os.getpid()):
        yield first + turn % number


PORTS = _own_ports()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that no other test gets."""
    found: list[int] = []
    while len(found) < count:
        port = next(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def marked(home: Path) -> list[psutil.Process]:
    """Living processes of the stack whose files are below `home`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def shared_supervisord(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisord]:
    supervisord = Supervisord(tmp_path_factory.mktemp("stack") / "local")
    supervisord.home.mkdir()
    yield supervisord
    supervisord.stop()


@pytest.fixture
def supervisord(shared_supervisord: Supervisord) -> Iterator[Supervisord]:
    """A running supervisord without programs: the module's, which is started again when a test has ended it."""
    shared_supervisord.start()
    yield shared_supervisord
    for name in shared_supervisord.states():
        shared_supervisord.remove(name)


@pytest.fixture
def program(tmp_path: Path, port: int) -> Callable[..., Program]:
    """A stand-in process: healthy at once, unless given other code."""

    def build(
        code: str = HEALTHY, *, name: str = "service", timeout: float = 20, environment: Mapping[str, str] | None = None
    ) -> Program:
        script = tmp_path / f"{name}.py"
        script.write_text(code)
        return Program(
            name=name,
            command=[sys.executable, str(script), str(port)],
            working_directory=str(tmp_path),
            environment=environment or {},
            health_url=f"http://127.0.0.1:{port}/health",
            timeout=timeout,
        )

    return build


@dataclass(frozen=True, slots=True)
class Checkout:
    """A temporary copy of the repository: ports, state and processes of its own."""

    path: Path
    ports: dict[str, int]
    offline: bool = True
    """Nothing is downloaded: Prometheus and Grafana are those of this machine."""

    @property
    def home(self) -> Path:
        return self.path / ".atlas" / "local"

    def configure(self, **settings: Any) -> None:
        """Change settings in Pulumi.local.yaml."""
        file = self.path / "Pulumi.local.yaml"
        document = yaml.safe_load(file.read_text())
        document["config"] |= {f"atlas:{key}": str(value) for key, value in settings.items()}
        file.write_text(yaml.safe_dump(document, sort_keys=False))

    def start(self, *arguments: str) -> warm.Process:
        """The `atlas` command, begun; its output is in .out and .err beside the copy's other files."""
        if self.offline and arguments[0] in ("up", "check"):
            arguments = (*arguments, "--offline")
        return warm.start(
            "infra.cli",
            arguments,
            cwd=self.path,
            env=os.environ | {"ATLAS_PYTHON": str(warm.python())},
            out=self.path / "atlas.out",
            err=self.path / "atlas.err",
        )

    def finish(self, process: warm.Process) -> "subprocess.CompletedProcess[str]":
        code = process.wait(timeout=240)
        return subprocess.CompletedProcess(
            process.args, code, (self.path / "atlas.out").read_text(), (self.path / "atlas.err").read_text()
        )

    def atlas(self, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """`atlas …` to its end; fails the test when it ends otherwise than with `code`."""
        done = self.finish(self.start(*arguments))
        assert done.returncode == code, f"atlas {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def get(self, part: str, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[part]}{path}", timeout=10) as response:
            return str(response.read().decode())

    def predict(self) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['service']}/predict",
            json.dumps({"rows": [EXAMPLE]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def pids(self) -> dict[str, int]:
        """Process id by program, as the supervisor has it."""
        return {name: int(state["pid"]) for name, state in Supervisord(self.home).states().items()}

    def assert_nothing_left(self) -> None:
        assert [process.cmdline() for process in marked(self.home)] == []
        assert [part for part, port in self.ports.items() if listens(port)] == []
        assert not self.home.exists()


def use_own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's cache that holds the engine only, whatever else this machine's own cache holds."""
    engine = cache_folder() / "engine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    cache_folder().mkdir(parents=True)
    if engine.is_dir():
        (cache_folder() / "engine").symlink_to(engine)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    """A copy whose stack is taken down after the test, however it went."""
    use_own_cache(tmp_path / "cache", monkeypatch)
    copy = tmp_path / "atlas"
    for folder in ("infra", "ml", "service"):
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("*.pyc.*"))
    for file in ("Pulumi.yaml", "Pulumi.local.yaml", ".pulumi.version"):
        shutil.copy(REPOSITORY / file, copy / file)
    make_bundle(copy / "models" / "bundle")
    home_without_logs(copy / ".atlas" / "pulumi")
    names = ("service", "mlflow", "prometheus", "grafana", "materializer")
    checkout = Checkout(copy, dict(zip(names, free_ports(len(names)), strict=True)))
    checkout.configure(scrapeInterval="1s", workers=1, **{f"{name}Port": port for name, port in checkout.ports.items()})
    yield checkout
    Supervisord(checkout.home).stop()


PLAYED = Account()


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line per call
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with played(PLAYED):
        running.start()
        host, port = running.get_host_and_port()
        yield f"http://{host}:{port}"
        running.stop()


@pytest.fixture
def account() -> Iterator[Account]:
    """How moto's account answers what moto doesn't play by itself; a test may change it."""
    yield PLAYED
    PLAYED.reset()


@pytest.fixture
def moto(moto_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty account that moto's server plays over HTTP, to this process and those that it starts."""
    urllib.request.urlopen(urllib.request.Request(f"{moto_server}/moto-api/reset", method="POST"), timeout=10)
    variables = {
        "AWS_ENDPOINT_URL": moto_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return moto_server
