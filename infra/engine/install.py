"""Install the pinned Pulumi engine and print its path.

The first of these that works is used: `pulumi` of the pinned version on PATH; the engine in the cache; the official
release; a build from its Go modules with the machine's own Go, which takes some minutes, but only once.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from infra.errors import EngineError, ToolError
from infra.tools import cache_folder, find_go, go_build

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"


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
    if _is_good(target, version):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"Pulumi engine v{version}: trying the official release")
    if _download(version, target):
        return target
    go = find_go()
    if go is None:
        raise EngineError(
            f"the Pulumi engine v{version} can neither be downloaded nor built: install it from pulumi.com, "
            "or install Go 1.26 or newer (go.dev), and run the command again"
        )
    say("Pulumi engine: the download failed; building it from its Go modules (about 5 minutes, only once)")
    _build(go, version, target, say)
    return target


def _is_good(binary: Path, version: str) -> bool:
    """Whether this is the engine of that version; it is run only if it isn't the file that was run before.

    Starting it takes a quarter of a second of processor time, which every command would pay.
    """
    note = binary.with_suffix(".checked")
    try:
        found = binary.stat()
        identity = f"{version} {found.st_size} {found.st_mtime_ns} {found.st_ino}"
        if note.is_file() and note.read_text() == identity:
            return True
        if version_of(binary) != version:
            return False
        note.write_text(identity)
    except OSError:  # the cache of another user, or there is no engine yet
        return version_of(binary) == version
    return True


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
    try:
        go_build(go, Path(__file__).parent, PACKAGE, target, say, ldflags=f"-X {VARIABLE}=v{version}")
    except ToolError as error:
        raise EngineError(f"building the Pulumi engine v{version} failed:\n{error}") from None
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
