"""Put the hosts' versions of Prometheus, Alertmanager and node_exporter in place, for tests; print the folder.

Built from their Go modules, once (some 6 minutes on two cores), below the user's cache: releases can't be downloaded
everywhere, and tests want what the hosts run, not what a distribution has. Such a build has no web page.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.hosts import versions
from infra.hosts.versions import ALERTMANAGER, NODE_EXPORTER, PROMETHEUS, Release
from infra.local.releases import TAGS, built_folder
from infra.tools import find_go, go_environment

MODULE = Path(versions.__file__).parent
"""The folder of go.mod."""
TOOLS: Mapping[str, tuple[Release, str]] = {
    "prometheus": (PROMETHEUS, "github.com/prometheus/prometheus/cmd/prometheus"),
    "promtool": (PROMETHEUS, "github.com/prometheus/prometheus/cmd/promtool"),
    "alertmanager": (ALERTMANAGER, "github.com/prometheus/alertmanager/cmd/alertmanager"),
    "amtool": (ALERTMANAGER, "github.com/prometheus/alertmanager/cmd/amtool"),
    "node_exporter": (NODE_EXPORTER, "github.com/prometheus/node_exporter"),
}


class ToolsError(Exception):
    """The tools can't be had; the message says what to install or change."""


def tool(name: str) -> Path | None:
    """A program of the hosts' version, where it has been built."""
    path = built_folder(TOOLS[name][0]) / name
    return path if path.exists() else None


def pinned() -> dict[str, str]:
    """Project -> version as go.mod has it; Prometheus numbers its module v0.3xx for release 3.xx."""
    found = re.findall(r"^\tgithub\.com/prometheus/(\w+) v(\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    return {
        name: re.sub(r"^0\.(\d)(\d\d)\.", lambda m: f"{m[1]}.{int(m[2])}.", version)
        if name == "prometheus"
        else version
        for name, version in found
    }


def ensure(say: Callable[[str], None]) -> None:
    """Build what is missing; `say` gets a line per step.

    Raises ToolsError without Go, or when go.mod has other versions than the hosts.
    """
    missing: dict[Release, list[str]] = {}
    for name, (release, _) in TOOLS.items():
        if tool(name) is None:
            missing.setdefault(release, []).append(name)
    if not missing:
        return
    go = find_go()
    if go is None:
        raise ToolsError("no Go to build them with: install Go 1.26 or newer (go.dev)")
    for release in missing:
        if pinned()[release.name] != release.version:
            raise ToolsError(
                f"{MODULE}/go.mod has {release.name} {pinned()[release.name]}, the hosts {release.version}: "
                "change the one that is behind"
            )
    with tempfile.TemporaryDirectory() as scratch:
        modfile = _with_page(go, Path(scratch))
        for release, names in missing.items():
            say(f"building {' and '.join(names)} {release.version} from Go modules (some minutes, once)")
            _build(go, modfile, release, names)


def _with_page(go: str, scratch: Path) -> Path:
    """A go.mod beside a copy of Alertmanager that has a page: its module comes without one and doesn't compile so."""
    module = "github.com/prometheus/alertmanager"
    _run(go, "mod", "download", module)
    source = Path(_run(go, "list", "-m", "-f", "{{.Dir}}", module).strip())
    copy = scratch / "alertmanager"
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    for directory in (copy, copy / "ui", copy / "ui" / "app"):
        directory.chmod(0o755)  # the module cache is read-only
    (copy / "ui" / "app" / "dist").mkdir()
    (copy / "ui" / "app" / "dist" / "index.html").write_text("built for tests, without its page\n")
    modfile = scratch / "go.mod"
    modfile.write_text((MODULE / "go.mod").read_text() + f"\nreplace {module} => {copy}\n")
    shutil.copyfile(MODULE / "go.sum", scratch / "go.sum")
    return modfile


def _build(go: str, modfile: Path, release: Release, names: list[str]) -> None:
    target = built_folder(release)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as fresh:
        _run(
            go, "build", f"-modfile={modfile}", "-trimpath", f"-tags={TAGS}",
            f"-ldflags=-s -w -X github.com/prometheus/common/version.Version={release.version}",
            "-o", f"{fresh}/", *(TOOLS[name][1] for name in names),
        )  # fmt: skip
        target.mkdir(exist_ok=True)
        for name in names:
            Path(fresh, name).replace(target / name)


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=MODULE, env=go_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolsError(f"`{' '.join(command[:3])} …` failed:\n" + "\n".join(done.stderr.splitlines()[-10:]))
    return done.stdout


def main() -> int:
    """`python -m tests.infra.monitoring.tools.build`."""
    try:
        ensure(lambda line: print(line, file=sys.stderr, flush=True))
    except ToolsError as error:
        print(f"monitoring tools: {error}", file=sys.stderr)
        return 1
    print(built_folder(PROMETHEUS).parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
