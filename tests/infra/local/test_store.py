"""The local stack shows the MLflow store to which the pipeline logs."""

import subprocess
from pathlib import Path

import pytest

from infra.environments.local import main_checkout
from ml.tracking_server import store

COMMIT = (
    "-c",
    "user.name=test",
    "-c",
    "user.email=test@example.invalid",
    "commit",
    "-q",
    "--allow-empty",
    "-m",
    "start",
)


@pytest.mark.slow
def test_stack_and_pipeline_use_the_same_store_in_a_linked_worktree_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, linked = tmp_path / "main", tmp_path / "linked"
    for command in (["init", "-q", str(main)], ["-C", str(main), *COMMIT]):
        subprocess.run(["git", *command], check=True)
    subprocess.run(["git", "-C", str(main), "worktree", "add", "-q", "--detach", str(linked)], check=True)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for folder in (main, linked):
        monkeypatch.chdir(folder)
        assert store() == main_checkout(folder) / ".atlas/mlflow" == main / ".atlas/mlflow"
