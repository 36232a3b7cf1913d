"""Prometheus and Grafana for the local stack: where they come from, in which order, and what is never trusted."""

import hashlib
import http.server
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.errors import ToolError
from infra.hosts import versions
from infra.hosts.versions import ELSEWHERE, GRAFANA, PROMETHEUS, release_for
from infra.local import releases
from infra.local.releases import PROGRAMS, find

pytestmark = pytest.mark.slow

PLATFORMS = ("linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64")
SCRIPT = "#!/bin/sh\necho made for a test\n"


@dataclass
class Server:
    """Files over HTTP, and which of them were asked for."""

    folder: Path
    url: str
    asked: list[str] = field(default_factory=list)

    def put(self, path: str, content: bytes) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, asked: list[str], **more: Any) -> None:
        self.asked = asked
        super().__init__(*arguments, **more)

    def do_GET(self) -> None:
        self.asked.append(self.path.lstrip("/"))
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    running = []

    def start(name: str) -> Server:
        served = Server(tmp_path / name, "")
        served.folder.mkdir()
        handler = partial(Handler, directory=str(served.folder), asked=served.asked)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        served.url = f"http://127.0.0.1:{server.server_port}"
        return served

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def mirror(serve: Callable[[str], Server]) -> Server:
    return serve("mirror")


def archive(folder: Path, name: str, script: str = SCRIPT) -> bytes:
    """An archive as the publisher makes it: one top folder."""
    top = folder / f"{name}-1.0"
    program = top / PROGRAMS[name]
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(script)
    program.chmod(0o755)
    (top / "LICENSE").write_text("of the release")
    with tarfile.open(folder / "made.tar.gz", "w:gz") as tar:
        tar.add(top, top.name)
    return (folder / "made.tar.gz").read_bytes()


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of the hosts' kind with an empty cache, an empty PATH, no Go, and official addresses without answer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(releases, "this_platform", lambda: "linux-amd64")
    monkeypatch.setattr(releases, "find_go", lambda: None)
    for name, release in releases.PINNED.items():
        monkeypatch.setitem(releases.PINNED, name, replace(release, base="http://127.0.0.1:1"))
    return tmp_path


@pytest.fixture
def pin(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Make a release of the name whose checksum is the pinned checksum."""

    def made(name: str, script: str = SCRIPT) -> bytes:
        content = archive(machine / "making", name, script)
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(releases.PINNED, name, replace(releases.PINNED[name], sha256=digest))
        return content

    (machine / "making").mkdir()
    return made


def at_mirror(name: str) -> str:
    return releases.PINNED[name].url("").lstrip("/")


def left(machine: Path) -> list[str]:
    return [path.name for path in (machine / "cache/atlas/releases").glob("*")]


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_release_is_put_into_the_cache_once(
    name: str, machine: Path, mirror: Server, pin: Callable[..., bytes]
) -> None:
    mirror.put(at_mirror(name), pin(name))
    said: list[str] = []
    found = find(name, said.append, mirror=mirror.url, install=True)
    assert found.folder == machine / "cache/atlas/releases" / f"{name}-{releases.PINNED[name].version}"
    assert found.program == found.folder / PROGRAMS[name]
    assert (found.folder / "LICENSE").exists()
    assert said == [f"{name} {releases.PINNED[name].version}: downloading 0 MB"]
    assert find(name, said.append, mirror=mirror.url, install=False) == found
    assert mirror.asked == [at_mirror(name)]
    assert left(machine) == [found.folder.name]


def test_wrong_checksum_is_refused_said_and_leaves_nothing(machine: Path, mirror: Server, pin: Any) -> None:
    pin("prometheus")
    mirror.put(at_mirror("prometheus"), archive(machine / "making", "prometheus", SCRIPT + "# changed\n"))
    on_path = machine / "bin" / "prometheus"
    on_path.parent.mkdir()
    on_path.write_text(SCRIPT)
    on_path.chmod(0o755)
    said: list[str] = []
    found = find("prometheus", said.append, mirror=mirror.url, install=True)
    assert (found.program, found.folder) == (on_path, None)
    assert "has the wrong checksum" in said[-1]
    assert said[-1].endswith(f"using {on_path}")
    assert left(machine) == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda mirror, _: mirror, r"answers 404 File not found"),
        (lambda mirror, content: mirror.put(at_mirror("grafana"), content[:-9]), r"wrong checksum"),
        (lambda mirror, _: setattr(mirror, "url", "http://127.0.0.1:1"), r"can't be downloaded \(.*refused\)"),
    ],
)
def test_failed_download_is_one_line_that_says_what_to_do(
    machine: Path, mirror: Server, pin: Any, spoil: Any, told: str
) -> None:
    spoil(mirror, pin("grafana"))
    with pytest.raises(ToolError, match=rf"^not in place: http.*{told}.*; install Grafana from grafana\.com") as raised:
        find("grafana", lambda _: None, mirror=mirror.url, install=True)
    assert "\n" not in str(raised.value)
    assert left(machine) == []


def test_program_that_does_not_run_here_is_refused(machine: Path, mirror: Server, pin: Any) -> None:
    mirror.put(at_mirror("grafana"), pin("grafana", "#!/bin/sh\nexit 1\n"))
    with pytest.raises(ToolError, match="doesn't run on this machine"):
        find("grafana", lambda _: None, mirror=mirror.url, install=True)
    assert left(machine) == []


def test_interrupted_download_leaves_nothing(machine: Path, mirror: Server, pin: Any) -> None:
    mirror.put(at_mirror("grafana"), pin("grafana"))

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find("grafana", interrupt, mirror=mirror.url, install=True)
    assert left(machine) == []


def test_offline_never_asks(mirror: Server, pin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.put(at_mirror("prometheus"), pin("prometheus"))
    monkeypatch.setattr(releases, "go_build", None)
    monkeypatch.setattr(releases, "find_go", lambda: "go")
    said: list[str] = []
    with pytest.raises(ToolError, match="not in place: `atlas up` without --offline downloads it"):
        find("prometheus", said.append, mirror=mirror.url, install=False)
    assert mirror.asked == said == []


def test_only_the_publisher_can_vouch_for_a_release_without_a_pinned_checksum(
    machine: Path, mirror: Server, pin: Any, serve: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = pin("grafana")
    official = serve("official")
    unknown = replace(releases.PINNED["grafana"], base=official.url, sha256=None)
    monkeypatch.setitem(releases.PINNED, "grafana", unknown)
    digest = hashlib.sha256(content).hexdigest()
    mirror.put(at_mirror("grafana"), content)
    mirror.put(f"{at_mirror('grafana')}.sha256", digest.encode())
    with pytest.raises(ToolError, match=rf"no checksum is pinned for this platform, and {official.url}.*\.sha256"):
        find("grafana", lambda _: None, mirror=mirror.url, install=True)
    assert mirror.asked == []
    official.put(f"{unknown.path}.sha256", f"{digest}  {unknown.path}\n".encode())
    assert find("grafana", lambda _: None, mirror=mirror.url, install=True).folder
    assert mirror.asked == [at_mirror("grafana")]


def test_prometheus_is_built_where_it_can_neither_be_downloaded_nor_found(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(go: str, module: Path, package: str, target: Path, *_: object, ldflags: str, more: list[str]) -> None:
        assert (go, module / "go.mod") == ("/a/go", Path(versions.__file__).parent / "go.mod")
        assert package in (module / "go.mod").read_text()
        assert ldflags.endswith(f".Version={PROMETHEUS.version}")
        target.write_text(SCRIPT)

    monkeypatch.setattr(releases, "find_go", lambda: "/a/go")
    monkeypatch.setattr(releases, "go_build", build)
    said: list[str] = []
    found = find("prometheus", said.append, install=True)
    assert found.folder is None
    assert found.program == machine / f"cache/atlas/monitoring/prometheus-{PROMETHEUS.version}/prometheus"
    assert "building it from its Go module" in said[-1]
    assert find("prometheus", said.append, install=False) == found


def test_failed_build_and_missing_go_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolError, match=r"it isn't on PATH, and there is no Go to build it; `apt-get install prome"):
        find("prometheus", lambda _: None, install=True)

    def fail(*_: object, **__: object) -> None:
        raise ToolError("go: no such module\ngo: try again")

    monkeypatch.setattr(releases, "find_go", lambda: "/a/go")
    monkeypatch.setattr(releases, "go_build", fail)
    with pytest.raises(ToolError, match=r"the build failed \(go: no such module go: try again\)"):
        find("prometheus", lambda _: None, install=True)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_has_its_own_files(platform: str) -> None:
    assert f"prometheus-{PROMETHEUS.version}.{platform}.tar.gz" in release_for(PROMETHEUS, platform).url(None)
    assert f"grafana-{GRAFANA.version}.{platform}.tar.gz" in release_for(GRAFANA, platform).url(
        "https://mirror.example.com"
    )
    pinned = [release_for(release, platform).sha256 for release in (PROMETHEUS, GRAFANA)]
    assert [known is not None for known in pinned] == [True, not platform.startswith("darwin")]


def test_checksums_are_of_the_hosts_versions_and_each_is_different() -> None:
    assert {name: version for name, version, _ in ELSEWHERE} == {
        release.name: release.version for release in (PROMETHEUS, GRAFANA)
    }
    known = [*ELSEWHERE.values(), PROMETHEUS.sha256, GRAFANA.sha256]
    assert len(set(known)) == len(known)
    assert {len(digest or "") for digest in known} == {64}


@pytest.mark.parametrize(
    ("system", "machine_name", "expected"),
    [("linux", "x86_64", "linux-amd64"), ("darwin", "arm64", "darwin-arm64"), ("linux", "aarch64", "linux-arm64")],
)
def test_platform_is_named_as_the_publishers_do(
    system: str, machine_name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine_name)
    assert releases.this_platform() == expected
