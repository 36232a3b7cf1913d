"""`python -m tests.infra.plugins.build`: the providers that a real cluster and a real Docker engine need, in a cache.

Both are Pulumi's own, built from their Go modules with the machine's Go: 4 and 6 minutes on two cores, only once.
"""

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from infra.errors import ToolError
from infra.tools import cache_folder, find_go, go_build

HERE = Path(__file__).parent
SOURCES = {".go", ".mod", ".sum"}


class BuildError(Exception):
    """A provider isn't available; the message says why."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One of Pulumi's own providers, and how it is built."""

    name: str
    sources: Path
    """The folder of its go.mod."""
    package: str
    """The Go package of the executable."""
    variable: str
    """The Go variable for the provider's version."""

    @property
    def binary(self) -> str:
        return f"pulumi-resource-{self.name}"

    @property
    def version(self) -> str:
        """The version of the Python package."""
        return version(f"pulumi-{self.name}")

    def folder(self) -> Path:
        """The folder with the executable, in the cache: its name changes with the version and the sources."""
        sources = b"".join(file.read_bytes() for file in sorted(self.sources.iterdir()) if file.suffix in SOURCES)
        digest = hashlib.sha256(sources).hexdigest()[:8]
        return cache_folder() / "plugins" / self.name / f"{self.version}-{digest}"

    def build(self, say: Callable[[str], None]) -> Path:
        """The folder with the executable, which is built if it isn't in the cache; `say` gets lines of progress.

        Raises BuildError where there is no Go, or it can't build it.
        """
        folder = self.folder()
        target = folder / self.binary
        if target.exists():
            return folder
        go = find_go()
        if go is None:
            raise BuildError(f"{self.binary} {self.version} is built with Go, and there is none (go.dev)")
        folder.mkdir(parents=True, exist_ok=True)
        say(f"building {self.binary} {self.version} from its Go module (some minutes, only once)")
        flags = f"-X {self.variable}={self.version}"
        try:
            go_build(go, self.sources, self.package, target, say, ldflags=flags)
        except ToolError as error:
            raise BuildError(f"building {self.binary} {self.version} failed:\n{error}") from None
        return folder


DOCKER_BUILD = Provider(
    name="docker-build",
    sources=HERE,
    package="github.com/pulumi/pulumi-docker-build/provider/cmd/pulumi-resource-docker-build",
    variable="github.com/pulumi/pulumi-docker-build/provider.Version",
)
KUBERNETES = Provider(name="kubernetes", sources=HERE / "kubernetes", package=".", variable="main.version")


def docker_build_plugin() -> Path:
    """The folder to put on PATH; skips the test if it isn't available."""
    return _or_skip(DOCKER_BUILD)


def kubernetes_plugin() -> Path:
    """The folder to put on PATH; skips the test if it isn't available."""
    return _or_skip(KUBERNETES)


def _or_skip(provider: Provider) -> Path:
    import pytest

    try:
        return provider.build(print)
    except BuildError as error:
        pytest.skip(str(error))


def main() -> int:
    begun = time.monotonic()
    try:
        folders = [provider.build(print) for provider in (DOCKER_BUILD, KUBERNETES)]
    except BuildError as error:
        print(f"plugins: {error}", file=sys.stderr)
        return 1
    print(f"plugins: {', '.join(map(str, folders))} ({time.monotonic() - begun:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
