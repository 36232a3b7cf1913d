"""Prometheus and Grafana for the local stack: the hosts' versions, put into the user's cache.

The first of these that works is used: the release in the cache; the official release, or the mirror's copy of it; the
program on PATH; for Prometheus, a build from its Go module with the machine's own Go, which takes some minutes, but
only once. A release is used only if its SHA-256 is right: the pinned checksum, or, where none is known, the checksum
that the publisher has at the official address. A mirror's own word never counts.
"""

import hashlib
import http.client
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ToolError, one_line
from infra.hosts import versions
from infra.hosts.versions import GRAFANA, PROMETHEUS, Release, release_for
from infra.tools import cache_folder, find_go, go_build

PROGRAMS = {"prometheus": "prometheus", "grafana": "bin/grafana"}
"""Release -> its program, as a path in the release's folder."""
PINNED = {"prometheus": PROMETHEUS, "grafana": GRAFANA}
BY_HAND = {
    "prometheus": "`apt-get install prometheus` or `brew install prometheus`",
    "grafana": "install Grafana from grafana.com (apt, yum or brew)",
}
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
TAGS = "netgo,remove_all_sd,enable_kubernetes_sd"
"""Of Prometheus's service discovery only what the hosts use: a third of the build's time."""
PACKAGE = "github.com/prometheus/prometheus/cmd/prometheus"
VERSION = "github.com/prometheus/common/version.Version"
TIMEOUT = 15
"""Seconds that the server may be silent."""
MB = 1_000_000

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A program on this machine."""

    program: Path
    folder: Path | None
    """The release's folder, with the other files that the program needs; None: not a release of ours."""


def find(name: str, say: Say, *, mirror: str | None = None, install: bool) -> Found:
    """The program; `install`: download or build it if necessary. `say` gets a line per step.

    Raises ToolError with a line that says why there is none, and how to get it.
    """
    release = release_for(PINNED[name], this_platform())
    folder = cache_folder() / "releases" / f"{name}-{release.version}"
    program = folder / PROGRAMS[name]
    if program.exists():
        return Found(program, folder)
    why = ""
    if install:
        try:
            _download(release, mirror, folder, say)
            return Found(program, folder)
        except ToolError as error:
            why = str(error)
    on_path = shutil.which(name)
    if on_path is not None:
        if install:
            say(f"{name} {release.version}: {why}; using {on_path}")
        return Found(Path(on_path), None)
    if name == "prometheus":
        built = built_folder(release) / name
        if not built.exists() and install:
            why += _build(release, built, f"{name} {release.version}: {why}", say)
        if built.exists():
            return Found(built, None)
    if not install:
        raise ToolError(f"not in place: `atlas up` without --offline downloads it; or {BY_HAND[name]}")
    raise ToolError(f"not in place: {why}; {BY_HAND[name]}, then `make up` again")


def built_folder(release: Release) -> Path:
    """Where what is built of a release is kept."""
    return cache_folder() / "monitoring" / f"{release.name}-{release.version}"


def this_platform() -> str:
    """Such as linux-amd64."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{MACHINES.get(machine, machine)}"


def _download(release: Release, mirror: str | None, folder: Path, say: Say) -> None:
    """Put the release into `folder`; raises ToolError with the reason why that is impossible."""
    url = release.url(mirror)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        expected = release.sha256 or _published(release)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            archive = Path(scratch, "archive.tar.gz")
            actual = _fetch(url, archive, f"{release.name} {release.version}", say)
            if actual != expected:
                raise ToolError(f"{url} has the wrong checksum: {actual} instead of {expected}")
            unpacked = _unpack(archive, Path(scratch, "unpacked"))
            told = subprocess.run([unpacked / PROGRAMS[release.name], "--version"], capture_output=True, check=False)
            if told.returncode:
                raise ToolError(f"the program of {url} doesn't run on this machine")
            if not folder.exists():  # another run may have been faster
                unpacked.rename(folder)
    except urllib.error.HTTPError as error:
        raise ToolError(f"{error.url} answers {error.code} {error.reason}") from None
    except (OSError, ValueError, http.client.HTTPException, tarfile.TarError) as error:
        raise ToolError(f"{url} can't be downloaded ({one_line(getattr(error, 'reason', error))})") from None


def _build(release: Release, program: Path, why: str, say: Say) -> str:
    """Build Prometheus; returns why that is impossible, or nothing."""
    go = find_go()
    if go is None:
        return "; it isn't on PATH, and there is no Go to build it"
    say(f"{why}; building it from its Go module (some minutes, only once; without its web page)")
    program.parent.mkdir(parents=True, exist_ok=True)
    ldflags = f"-X {VERSION}={release.version}"
    try:
        go_build(go, Path(versions.__file__).parent, PACKAGE, program, say, ldflags=ldflags, more=[f"-tags={TAGS}"])
    except ToolError as error:
        return f"; the build failed ({one_line(error)[-200:]})"
    return ""


def _published(release: Release) -> str:
    """The checksum that the publisher has beside the release."""
    url = f"{release.url(None)}.sha256"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 - https
            found = re.match(r"[0-9a-f]{64}\b", response.read(1000).decode(errors="replace").lower())
    except (OSError, http.client.HTTPException) as error:
        reason = one_line(getattr(error, "reason", error))
        raise ToolError(f"no checksum is pinned for this platform, and {url} can't be read ({reason})") from None
    if found is None:
        raise ToolError(f"{url} contains no SHA-256")
    return found[0]


def _fetch(url: str, file: Path, what: str, say: Say) -> str:
    """Download into the file; returns its SHA-256."""
    digest, done, said = hashlib.sha256(), 0, time.monotonic()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, file.open("wb") as target:  # noqa: S310
        size = int(response.headers.get("Content-Length") or 0)
        say(f"{what}: downloading {size // MB} MB" if size else f"{what}: downloading")
        while block := response.read(1 << 20):
            digest.update(block)
            target.write(block)
            done += len(block)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                say(f"  {done // MB} MB")
    if size and done != size:
        raise ToolError(f"{url} ended after {done} of {size} bytes")
    return digest.hexdigest()


def _unpack(archive: Path, into: Path) -> Path:
    """The archive's only top folder, unpacked."""
    with tarfile.open(archive) as tar:
        # Python before 3.11.4 has no filter; the checksum has vouched for the contents.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(into)  # noqa: S202
    (top,) = into.iterdir()
    return top
