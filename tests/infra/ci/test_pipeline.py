"""Comparing the pipeline with its commit: DVC's output, and its interpretation."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra.ci import pipeline
from infra.errors import StepError

pytestmark = pytest.mark.slow

STATUS = {
    "data_ingestion": [{"changed outs": {"data/raw": "deleted"}}],
    "data_preprocessing": [
        {"changed deps": {"data/raw": "deleted"}},
        {"changed outs": {"data/processed": "not in cache"}},
    ],
    "register_model": ["always changed"],
}


def told(monkeypatch: pytest.MonkeyPatch, code: int = 0, out: str = "", err: str = "") -> None:
    """Replace DVC's output with this."""
    done: subprocess.CompletedProcess[str] = subprocess.CompletedProcess([], code, out, err)
    monkeypatch.setattr(pipeline, "dvc", lambda *_: done)


def test_clean_clone_whose_outputs_are_not_here_is_of_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, out=json.dumps(STATUS))
    pipeline.check_lock(Path())


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("changed command", "its command"),
        ({"changed deps": {"ml/model_building.py": "modified"}}, "ml/model_building.py"),
        ({"changed deps": {"params.yaml": {"model.estimators": "modified"}}}, "params.yaml: model.estimators"),
        ({"changed deps": {"table.csv": "deleted"}}, "table.csv"),  # no stage makes it
        ({"changed outs": {"models/trained": "modified"}}, "models/trained"),
    ],
)
def test_lock_of_another_commit_is_told_with_what_mends_it(
    monkeypatch: pytest.MonkeyPatch, entry: Any, reason: str
) -> None:
    told(monkeypatch, out=json.dumps({**STATUS, "model_building": [entry]}))
    with pytest.raises(StepError) as failed:
        pipeline.check_lock(Path())
    assert str(failed.value) == (
        f"the commit lacks its dvc.lock (model_building: {reason}). To fix this, run "
        "`make repro && git add dvc.lock reports && git commit`"
    )


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: failed to pull data from the cloud - Checkout failed for following targets: missing-files",
        "ERROR: unexpected error - NoSuchBucket: the specified bucket does not exist",
    ],
)
def test_remote_that_is_not_there_yet_is_no_failure(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    told(monkeypatch, 1, err=said)
    assert "isn't there yet, or lacks some outputs" in pipeline.pull(Path())


def test_remote_that_refuses_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, 1, err="ERROR: unexpected error - Forbidden: An error occurred (403)\nmore\n")
    with pytest.raises(StepError, match=r"^dvc pull: unexpected error - Forbidden: An error occurred \(403\)$"):
        pipeline.pull(Path())
    with pytest.raises(StepError, match=r"^dvc push: unexpected error - Forbidden"):
        pipeline.push(Path())


def write_lock(folder: Path, outs: dict[str, str]) -> None:
    lines = "".join(f"    - {{path: {path}, md5: '{md5}'}}\n" for path, md5 in outs.items())
    (folder / "dvc.lock").write_text(f"stages:\n  all:\n    outs:\n{lines}")


@pytest.mark.parametrize(
    ("before", "after", "figures", "verdict"),
    [
        ({"models/trained": "1"}, {"models/trained": "1"}, {}, []),
        ({"models/trained": "1"}, {"models/trained": "2"}, {"brier": (0.1, 0.1005)}, ["models/trained"]),
        ({"models/trained": "1"}, {"models/trained": "2"}, {"brier": (0.1, 0.12)}, "brier is 0.12, committed as 0.1"),
        ({"data/processed": "1"}, {"data/processed": "2"}, {}, "data/processed"),
        ({"models/trained": "1"}, {"models/trained": "2"}, {"new": (float("inf"), 1.0)}, "new is 1, committed as inf"),
    ],
)
def test_rerun_may_differ_by_arithmetic_and_by_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: Any, after: Any, figures: Any, verdict: Any
) -> None:
    def rerun(_: Path, *__: str) -> "subprocess.CompletedProcess[str]":
        write_lock(tmp_path, after)
        return subprocess.CompletedProcess([], 0, "{}", "")

    write_lock(tmp_path, before)
    monkeypatch.setattr(pipeline, "dvc", rerun)
    monkeypatch.setattr(pipeline, "moved", lambda _: figures)
    if isinstance(verdict, str):
        with pytest.raises(StepError, match="a rerun differs from the commit: .*" + verdict):
            pipeline.reproduce(tmp_path)
    else:
        assert pipeline.reproduce(tmp_path).differs == verdict


def test_base_is_the_one_asked_for_the_requests_or_the_commit_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GITHUB_BASE_REF", raising=False)

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.invalid", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "one")
    first = git("rev-parse", "HEAD")
    assert pipeline.base_of(tmp_path, None) is None
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert pipeline.base_of(tmp_path, None) == first
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    assert pipeline.base_of(tmp_path, None) == git("rev-parse", "HEAD")
    assert pipeline.base_of(tmp_path, first) == first
    with pytest.raises(StepError, match=r"git has no nope here: run `git fetch origin`"):
        pipeline.base_of(tmp_path, "nope")
