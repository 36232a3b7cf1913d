"""The notes of a release."""

import subprocess
from pathlib import Path

import pytest

from infra.ci.changelog import notes_of
from infra.errors import StepError

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.invalid", *arguments]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)

    git("init", "-q", "-b", "main")
    for number, tag in enumerate(["v1.0.0", None, "not-a-version", "v1.1.0-rc.1", "v1.1.0"]):
        git("commit", "-q", "--allow-empty", "-m", f"Change {number}\n\nAt length.")
        if tag:
            git("tag", tag)
    return tmp_path


def test_notes_are_the_commits_since_the_version_before(repository: Path) -> None:
    lines = notes_of(repository, "v1.1.0-rc.1").splitlines()
    assert lines[0] == "Since v1.0.0:"
    assert [line.rpartition(" (")[0] for line in lines[2:]] == ["- Change 3", "- Change 2", "- Change 1"]
    assert notes_of(repository, "v1.0.0").startswith("The first release:\n\n- Change 0 (")


@pytest.mark.parametrize(("tag", "told"), [("nonsense", "is not a version"), ("v9.9.9", "there is no tag v9.9.9 here")])
def test_mistake_is_named(repository: Path, tag: str, told: str) -> None:
    with pytest.raises(StepError, match=told):
        notes_of(repository, tag)
