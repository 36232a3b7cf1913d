"""A repository of a user of Atlas: with a small table and its own stack files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.github.runner import Runner, install_packages, shared_cache
from tests.github.server import GithubServer, serving
from tests.github.workflows import REPOSITORY
from tests.infra.conftest import moto, moto_server  # noqa: F401 - fixtures
from tests.ml.small import small_pipeline

GIT = {
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.invalid",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.invalid",
}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | GIT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repro(folder: Path, origin: Path | None = None) -> None:
    """`dvc repro` in the folder, with this Python; it uses the results that `origin` already has."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "GIT_"))}
    if origin:
        kept["DVC_GLOBAL_CONFIG_DIR"] = str(shared_cache(origin))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=folder, env=kept | GIT | {"PATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)


def write_stack(folder: Path, stack: str, settings: Mapping[str, object]) -> None:
    """Pulumi.<stack>.yaml with these settings; the encryption of its secrets is unchanged."""
    file = folder / f"Pulumi.{stack}.yaml"
    kept = {key: value for key, value in yaml.safe_load(file.read_text()).items() if key == "encryptionsalt"}
    file.write_text(yaml.safe_dump({**kept, "config": {f"atlas:{key}": value for key, value in settings.items()}}))


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of this run's workers that needs it makes; the others wait, and nobody changes it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # another worker failed in the middle
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of `main`: the files of this working tree, a small table, and what the pipeline makes of it."""
    path = tmp_path_factory.mktemp("jobs") / "origin"
    return shutil.copytree(made_once(tmp_path_factory, "adopted", _adopt), path, symlinks=True)


def _adopt(path: Path) -> None:
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, files.stdout.split("\0")):
        source, target = REPOSITORY / name, path / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    git(path, "init", "-q", "-b", "main")
    commit(path, "As adopted")
    small_pipeline(path)
    repro(path)
    commit(path, "A table of ours")


@pytest.fixture(scope="module")
def runner(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    packages = made_once(tmp_path_factory, "packages", lambda folder: install_packages(origin, folder))
    return Runner(origin, tmp_path_factory.mktemp("runner"), packages / ".venv")


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GithubServer]:
    """GitHub's API, without any content."""
    with serving() as server:
        monkeypatch.setenv("GITHUB_API_URL", server.address)
        yield server
