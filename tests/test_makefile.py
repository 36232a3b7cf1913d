"""The Makefile: the order of its steps, and a folder that is no git repository."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PLUGINS = [file.relative_to(REPOSITORY) for file in (REPOSITORY / "infra").glob("*/pulumi-*") if file.suffix == ""]
pytestmark = pytest.mark.slow


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Without make's own variables, since the tests may run under make; and no repository above `folder` counts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return kept | {"GIT_CEILING_DIRECTORIES": str(folder.parent)} | variables


def run(folder: Path, *command: str, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(folder, **variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_up_looks_at_the_ports_before_the_pipeline_runs() -> None:
    steps = run(REPOSITORY, "make", "--dry-run", "up")
    order = [steps.index(step) for step in ("atlas check --stack local", "dvc repro", "atlas up --stack local")]
    assert order == sorted(order)


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    """A downloaded ZIP, unpacked in a folder with a space, whose set-up is done."""
    folder = tmp_path / "atlas main"
    shutil.copytree(REPOSITORY / ".dvc", folder / ".dvc", ignore=lambda *_: {"cache", "tmp", "config.local"})
    shutil.copytree(REPOSITORY / "requirements", folder / "requirements")
    for file in ("Makefile", "pyproject.toml", "dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy(REPOSITORY / file, folder)
    for plugin in PLUGINS:
        (folder / plugin).parent.mkdir(parents=True)
        shutil.copyfile(REPOSITORY / plugin, folder / plugin)  # without its mode, as some programs unpack a ZIP
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.prefix) / "bin")
    for stamp in ("setup", "run"):
        (folder / ".venv" / stamp).touch()
    return folder


def test_pipeline_works_in_a_downloaded_zip_and_uses_git_once_it_is_there(zipped: Path) -> None:
    local = zipped / ".dvc" / "config.local"
    assert "no git repository (a downloaded ZIP?)" in run(zipped, "make", "scm")
    assert "no_scm = true" in local.read_text()
    assert len(PLUGINS) == 2
    assert all(os.access(zipped / plugin, os.X_OK) for plugin in PLUGINS)
    assert "data_ingestion" in run(zipped, ".venv/bin/dvc", "stage", "list")
    assert run(zipped, "make", "scm") == ""
    run(zipped, "git", "init", "--quiet")
    run(zipped, "make", "scm")
    assert "no_scm" not in local.read_text()
    assert "data_ingestion" in run(zipped, ".venv/bin/dvc", "stage", "list")


def test_the_pipeline_of_a_downloaded_zip_is_prepared_by_the_first_command(zipped: Path) -> None:
    steps = run(zipped, "make", "--dry-run", "up")
    assert steps.index("core.no_scm true") < steps.index("dvc repro")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://p:1"}, "127.0.0.1,localhost,::1"),
        ({"http_proxy": "http://p:1", "NO_PROXY": ".corp"}, ".corp,127.0.0.1,localhost,::1"),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "*"),
    ],
)
def test_stages_never_ask_this_machine_through_a_proxy(given: dict[str, str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(f'include {REPOSITORY}/Makefile\nshown:\n\t@echo "$$no_proxy"\n')
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    none = {spelled: "" for name in names for spelled in (name, name.upper())}
    assert run(tmp_path, "make", "shown", **(none | given)).strip() == expected


def test_a_stage_that_fails_ends_with_its_own_line(zipped: Path) -> None:
    (zipped / "ml").mkdir()
    (zipped / "ml" / "__init__.py").touch()
    (zipped / "ml" / "data_ingestion.py").write_text('import sys\nsys.exit("data_ingestion: t.csv can\'t be read")\n')
    (zipped / "t.csv").write_text("a\n1\n")
    (zipped / "params.yaml").write_text("data: {uri: t.csv}\n")
    (zipped / "dvc.yaml").write_text(
        "stages:\n  data_ingestion:\n    cmd: python -m ml.data_ingestion\n    deps: [t.csv]\n"
    )
    repro = partial(
        subprocess.run,
        ["make", "repro"],
        cwd=zipped,
        env=environment(zipped),
        capture_output=True,
        text=True,
        check=False,
    )
    done = repro()
    assert done.returncode != 0
    assert "Running stage 'data_ingestion'" in done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert lines == ["data_ingestion: t.csv can't be read"]
    assert "> python" not in done.stdout
    (zipped / "t.csv").unlink()  # what DVC itself finds wrong is said
    done = repro()
    assert "t.csv" in done.stderr
