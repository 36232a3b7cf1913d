"""Install the pinned Pulumi engine and print its path.

The first of these that works is used: `pulumi` of the pinned version on PATH; the engine in the cache; the official
release; a build from its Go modules with the machine's own Go, which takes some minutes, but only once.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from infra.errors import EngineError

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"


def cache_folder() -> Path:
    """This user's folder for tools that are slow to build, shared by all checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atlas"


def find_go() -> str | None:
    """The path of the machine's Go: on PATH, or in the folder of Go's installer, which doesn't change PATH."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def go_environment() -> dict[str, str]:
    """The environment for builds from a locked go.mod: static binaries, and go.mod is never changed."""
    return os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}


def pinned_version() -> str:
    """The version in .pulumi.version, without `v`."""
    return (REPOSITORY / ".pulumi.version").read_text().strip()


def cached(version: str) -> Path:
    """The engine's path in the cache, in the layout that Pulumi's Automation API expects: ROOT/bin/pulumi."""
    return cache_folder() / "engine" / f"v{version}" / "bin" / "pulumi"


def version_of(binary: str | Path) -> str | None:
    """The version that `pulumi version` prints, without `v`; None if it doesn't run."""
    try:
        told = subprocess.run(
            [str(binary), "version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            env=os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "true"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip().removeprefix("v")


def ensure(say: Callable[[str], None]) -> Path:
    """The pinned engine's executable, installed if necessary; `say` gets a line per step.

    Raises EngineError when it can neither be downloaded nor built.
    """
    version = pinned_version()
    on_path = shutil.which("pulumi")
    if on_path is not None and version_of(on_path) == version:
        return Path(on_path)
    target = cached(version)
    if version_of(target) == version:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"Pulumi engine v{version}: trying the official release")
    if _download(version, target):
        return target
    go = find_go()
    if go is None:
        raise EngineError(
            f"the Pulumi engine v{version} can neither be downloaded nor built: install it from pulumi.com, "
            "or install Go 1.25 or newer (go.dev), and run the command again"
        )
    say("Pulumi engine: the download failed; building it from its Go modules (about 5 minutes, only once)")
    _build(go, version, target, say)
    return target


def _download(version: str, target: Path) -> bool:
    """Install the official release into the cache with Pulumi's own installer; False if that fails."""
    from pulumi.automation import PulumiCommand
    from semver import VersionInfo

    with tempfile.TemporaryDirectory(dir=target.parent.parent) as folder:
        try:
            PulumiCommand.install(root=folder, version=VersionInfo.parse(version))
        except Exception:  # no network, a proxy's refusal, an unsupported system: the engine is then built
            return False
        if version_of(Path(folder, "bin", "pulumi")) != version:
            return False
        for file in Path(folder, "bin").iterdir():
            file.replace(target.parent / file.name)
    return True


def _build(go: str, version: str, target: Path, say: Callable[[str], None]) -> None:
    fresh = target.with_name(f"pulumi.new-{os.getpid()}")
    command = [go, "build", "-trimpath", "-ldflags", f"-s -w -X {VARIABLE}=v{version}", "-o", str(fresh), PACKAGE]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        building = subprocess.Popen(
            command, cwd=Path(__file__).parent, env=go_environment(), stdout=output, stderr=output
        )
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
            tail = "\n".join(output.read().splitlines()[-10:])
            raise EngineError(f"building the Pulumi engine v{version} failed:\n{tail}")
    fresh.replace(target)
    if version_of(target) != version:
        raise EngineError(f"the engine built at {target} does not report the version v{version}")


def main() -> int:
    try:
        print(ensure(lambda line: print(line, file=sys.stderr, flush=True)))
    except EngineError as error:
        print(f"engine: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("engine: interrupted; run the command again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
