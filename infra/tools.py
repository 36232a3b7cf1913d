"""Tools that Atlas puts in place for the user: their folder, and building them with the machine's own Go."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.errors import ToolError


def cache_folder() -> Path:
    """This user's folder for tools that are slow to get, shared by all checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atlas"


def find_go() -> str | None:
    """The path of the machine's Go: on PATH, or in the folder of Go's installer, which doesn't change PATH."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def go_environment() -> dict[str, str]:
    """The environment for builds from a locked go.mod: static binaries, and go.mod is never changed."""
    return os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}


def go_build(
    go: str,
    module: Path,
    package: str,
    target: Path,
    say: Callable[[str], None],
    *,
    ldflags: str,
    more: Sequence[str] = (),
) -> None:
    """Build the package, pinned by the go.mod in `module`, as the executable `target`; `say` gets a line every 30 s.

    Raises ToolError with the end of Go's output.
    """
    fresh = target.with_name(f"{target.name}.new-{os.getpid()}")
    command = [go, "build", "-trimpath", *more, f"-ldflags=-s -w {ldflags}", "-o", str(fresh), package]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        building = subprocess.Popen(command, cwd=module, env=go_environment(), stdout=output, stderr=output)
        try:
            while building.poll() is None:
                try:
                    building.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    say(f"  building for {time.monotonic() - begun:.0f} s")
        except BaseException:
            building.terminate()
            building.wait()
            fresh.unlink(missing_ok=True)
            raise
        if building.returncode:
            output.seek(0)
            raise ToolError("\n".join(output.read().splitlines()[-10:]))
    fresh.replace(target)
