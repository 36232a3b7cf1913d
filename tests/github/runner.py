"""Runs a workflow's job on this machine with act: `run:` steps are real, actions are replaced by the scripts below.

As on GitHub, what one job fetched is kept for the next: actions/cache gives a job its `.venv` ready-made, with the
packages of the make target that the job asks for. A job that uses no cache (release.yml) makes all of it itself.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.tools import find_go, go_environment
from tests.github.workflows import REPOSITORY, used
from tests.infra.support import warm

ACTIONS: Mapping[str, str] = {
    "actions/setup-python": ":",
    "actions/setup-go": ":",
    "actions/cache": """case "$KEY" in
  setup-*-.venv/dev-*) packages=$ATLAS_DEV_PACKAGES stamps=".venv/setup .venv/run .venv/dev" ;;
  setup-*) packages=$ATLAS_RUN_PACKAGES stamps=".venv/setup .venv/run" ;;
  *) exit 0 ;;
esac
mkdir .venv
ln -s "$packages"/{bin,lib,pyvenv.cfg} .venv/
touch $stamps
echo "PYTHONPATH=$PWD" >> "$GITHUB_ENV" # the packages have this project as it was when they were installed""",
    "docker/setup-buildx-action": "docker buildx inspect >/dev/null",
    "actions/upload-artifact": 'mkdir -p "$ATLAS_ARTIFACTS/$NAME" && cp -r "$PATH_GIVEN" "$ATLAS_ARTIFACTS/$NAME/"',
    "actions/download-artifact": 'mkdir -p "$(dirname "$PATH_GIVEN")" && cp -r "$ATLAS_ARTIFACTS/$NAME"/* "$(dirname "$PATH_GIVEN")/"',  # noqa: E501
    "anchore/sbom-action": 'mkdir -p "$(dirname "$OUTPUT_FILE")" && echo "{}" > "$OUTPUT_FILE"',
    "anchore/scan-action": 'test -f "$SBOM"',
    # What the action does if the account trusts the job; test_workflows.py tests the trust.
    "aws-actions/configure-aws-credentials": 'test -n "$ROLE_TO_ASSUME" && echo "$ROLE_TO_ASSUME $ROLE_DURATION_SECONDS" >> "$ATLAS_ROLES"',  # noqa: E501
}
"""Actions that need GitHub, AWS, or a download -> the replacement here; act itself implements actions/checkout."""


@cache
def act() -> Path:
    """The program, built with the machine's Go; skips the test if there is no Go."""
    go = find_go()
    if go is None:
        pytest.skip("act, which runs workflows, is built with Go, and there is none (go.dev)")
    tools = Path(__file__).parent / "tools"
    done = subprocess.run(
        [go, "-C", str(tools), "tool", "-n", "act"], env=go_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@dataclass
class Runner:
    """Runs jobs on clean clones of a repository."""

    origin: Path
    folder: Path
    packages: Path
    """A virtual environment, from install_packages."""
    variables: dict[str, str] = field(default_factory=dict)
    """GitHub's."""
    environment: dict[str, str] = field(default_factory=dict)
    clones: int = 0

    def __post_init__(self) -> None:
        act()
        stubs = self.folder / "actions"
        self.options: list[str] = []
        for action in sorted({action for _, action, _ in used() if not action.startswith("./")}):
            name = action.partition("@")[0]
            if name != "actions/checkout":
                _stub(stubs / name, ACTIONS[name], _inputs_of(name))
                self.options += ["--local-repository", f"{action}={stubs / name}"]
        self.roles = self.folder / "roles.txt"
        self.artifacts = self.folder / "artifacts"

    def clone(self) -> Path:
        """A clean clone."""
        self.clones += 1
        path = self.folder / f"clone-{self.clones}"
        subprocess.run(["git", "clone", "-q", str(self.origin), str(path)], check=True)
        return path

    def run(
        self,
        event: str,
        workflow: str,
        job: str,
        payload: Mapping[str, Any] | None = None,
        *,
        clone: Path | None = None,
        variables: Mapping[str, str] | None = None,
        matrix: Mapping[str, str] | None = None,
        from_nothing: bool = False,
        code: int = 0,
    ) -> str:
        """The job's output; fails the test if its exit status isn't `code`.

        The job finds what was made of the data before in DVC's cache, and its policy packs are forked, unless it has to
        make everything `from_nothing`.
        """
        clone = clone or self.clone()
        document = self.folder / "event.json"
        owner = {"full_name": "o/r", "name": "r", "default_branch": "main", "owner": {"login": "o"}}
        document.write_text(json.dumps({"repository": owner, **(payload or {})}))
        options = [
            *self.options,
            "-P",
            "ubuntu-24.04=-self-hosted",
            "-e",
            str(document),
            "-s",
            "GITHUB_TOKEN=the-token",
        ]
        for name, value in {**self.variables, **(variables or {})}.items():
            options += ["--var", f"{name}={value}"]
        for name, value in (matrix or {}).items():
            options += ["--matrix", f"{name}:{value}"]
        given = {
            **_kept(),
            **({} if from_nothing else {"DVC_GLOBAL_CONFIG_DIR": str(shared_cache(self.origin))}),
            "ATLAS_DEV_PACKAGES": sys.prefix,
            "ATLAS_RUN_PACKAGES": str(self.packages),
            # The policy packs, which every preview and `up` start anew; `atlas` itself is the job's own.
            **({} if from_nothing else {"ATLAS_PYTHON": str(warm.python())}),
            "ATLAS_ROLES": str(self.roles),
            "ATLAS_ARTIFACTS": str(self.artifacts),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
            "NO_COLOR": "1",
            **self.environment,
        }
        # act would ask the clone's remote for the name.
        passed = ["--env", "GITHUB_REPOSITORY=o/r", "--env", f"GITHUB_API_URL={os.environ.get('GITHUB_API_URL', '')}"]
        command = [str(act()), event, "-W", f".github/workflows/{workflow}.yml", "-j", job, *options, *passed]
        done = subprocess.run(
            command, cwd=clone, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        shutil.rmtree(clone)
        assert done.returncode == code, done.stdout[-8000:]
        return done.stdout


def install_packages(origin: Path, folder: Path) -> None:
    """Make `.venv` in `folder`, as `make .venv/run` does on a clean clone: without the packages for tests."""
    subprocess.run(["git", "clone", "-q", str(origin), str(folder)], check=True)
    done = subprocess.run(
        ["make", "--silent", ".venv/run"], cwd=folder, env=_kept(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # The files are this environment's own, which has compiled most of them: to do it again takes ten seconds.
    own = Path(sysconfig.get_path("purelib"))
    for compiled in own.rglob("__pycache__"):
        target = folder / ".venv" / compiled.relative_to(sys.prefix)
        if target.parent.is_dir() and not target.exists():
            shutil.copytree(compiled, target)


def shared_cache(origin: Path) -> Path:
    """A folder with a DVC configuration that uses the repository's cache."""
    folder = origin.parent / "dvc"
    folder.mkdir(exist_ok=True)
    (folder / "config").write_text(f"[cache]\n    dir = {origin / '.dvc' / 'cache'}\n")
    return folder


def _kept() -> dict[str, str]:
    """This process's environment, without variables about its own run, under make or pytest."""
    own = ("GITHUB_", "PYTEST_", "ATLAS_PYTHON", "MAKE", "MFLAGS", "ARGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def _inputs_of(action: str) -> list[str]:
    """The inputs that the workflows pass."""
    found: set[str] = set()
    for path in (REPOSITORY / ".github").rglob("*.yml"):
        document = yaml.safe_load(path.read_text())
        bodies = [*(document.get("jobs") or {}).values(), document.get("runs") or {}]
        for step in (step for body in bodies for step in body.get("steps") or [] if isinstance(step, dict)):
            if str(step.get("uses", "")).startswith(f"{action}@"):
                found |= set(step.get("with") or {})
    return sorted(found)


def _stub(folder: Path, command: str, inputs: list[str]) -> None:
    folder.mkdir(parents=True)
    variables = {
        ("PATH_GIVEN" if name == "path" else name.upper().replace("-", "_")): f"${{{{ inputs.{name} }}}}"
        for name in inputs
    }
    document = {
        "name": folder.name,
        "description": "Stands in for the action",
        "inputs": {name: {"description": name} for name in inputs},
        "runs": {"using": "composite", "steps": [{"run": command, "shell": "bash", "env": variables}]},
    }
    (folder / "action.yml").write_text(yaml.safe_dump(document, sort_keys=False))
