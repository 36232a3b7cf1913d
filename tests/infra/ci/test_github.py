"""Comments, issues and releases on GitHub are written once and then edited; a stub replaces GitHub's API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.ci import github
from infra.errors import StepError
from tests.github.server import GithubServer, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GithubServer]:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 7}}))
    with serving() as found:
        monkeypatch.setenv("GITHUB_API_URL", found.address)
        monkeypatch.setenv("GITHUB_TOKEN", "the-token")
        monkeypatch.setenv("GITHUB_REPOSITORY", "o/r")
        monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
        yield found


def test_comment_is_edited_and_never_piled_up(server: GithubServer) -> None:
    assert github.pull_request() == 7
    first = github.comment(7, "MARK one", "MARK")
    assert github.comment(7, "MARK two", "MARK") == first
    assert [comment["body"] for comment in server.comments] == ["MARK two"]


def test_comment_of_a_person_is_left_alone(server: GithubServer) -> None:
    github.comment(7, "MARK one", "MARK")
    server.comments[0]["user"] = {"login": "me", "type": "User", "id": 2}
    github.comment(7, "MARK two", "MARK")
    assert [comment["body"] for comment in server.comments] == ["MARK one", "MARK two"]


def test_issue_is_opened_updated_closed_and_opened_anew(server: GithubServer) -> None:
    assert github.keep_issue("Drift", "MARK a", "MARK", wanted=False) == "nothing to tell"
    assert github.keep_issue("Drift", "MARK a", "MARK", wanted=True).startswith("opened ")
    assert github.keep_issue("Drift", "MARK b", "MARK", wanted=True).startswith("updated ")
    assert github.keep_issue("Other", "OTHER", "OTHER", wanted=True).startswith("opened ")
    assert github.keep_issue("Drift", "MARK b", "MARK", wanted=False).startswith("closed ")
    assert [(issue["body"], issue["state"]) for issue in server.issues] == [("MARK b", "closed"), ("OTHER", "open")]
    assert github.keep_issue("Drift", "MARK c", "MARK", wanted=True).startswith("opened ")


def test_release_can_be_made_again(server: GithubServer) -> None:
    github.release("v1.0.0", "first")
    github.release("v1.0.0", "second")
    assert [(release["tag_name"], release["body"]) for release in server.releases] == [("v1.0.0", "second")]


def test_refusal_names_the_permission_and_the_document(server: GithubServer) -> None:
    server.denied = True
    with pytest.raises(StepError, match=r"GitHub answers 403 Resource not accessible.*docs/ci.md"):
        github.comment(7, "MARK", "MARK")


def test_outside_a_workflow_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "GITHUB_REPOSITORY", "GITHUB_EVENT_PATH", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StepError, match="GITHUB_TOKEN and GITHUB_REPOSITORY"):
        github.comment(7, "MARK", "MARK")
    with pytest.raises(StepError, match="belong to a pull request"):
        github.pull_request()
    with pytest.raises(StepError, match="GITHUB_STEP_SUMMARY"):
        github.summarise("text")
