"""What the workflows write on GitHub: a comment on a pull request, an issue per stack with drift, a release."""

import json
import os
from pathlib import Path
from typing import Any

from github import Auth, Github, GithubException
from github.Repository import Repository

from infra.errors import StepError


def repository() -> Repository:
    """The repository of the workflow that runs.

    Raises StepError outside a workflow.
    """
    token, name = os.environ.get("GITHUB_TOKEN"), os.environ.get("GITHUB_REPOSITORY")
    if not token or not name:
        raise StepError("GITHUB_TOKEN and GITHUB_REPOSITORY must be set: set both, or run this command in a workflow")
    client = Github(
        auth=Auth.Token(token), base_url=os.environ.get("GITHUB_API_URL") or "https://api.github.com", lazy=True
    )
    return client.get_repo(name)


def pull_request() -> int:
    """The number of the pull request that the workflow runs for.

    Raises StepError when it runs for another event.
    """
    event = os.environ.get("GITHUB_EVENT_PATH")
    document: dict[str, Any] = json.loads(Path(event).read_text()) if event else {}
    number = (document.get("pull_request") or {}).get("number")
    if not isinstance(number, int):
        raise StepError("this run doesn't belong to a pull request, so there is nothing to comment on")
    return number


def link() -> str:
    """The address of this run; empty outside a workflow."""
    server, name, run = (os.environ.get(f"GITHUB_{part}") for part in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{name}/actions/runs/{run}" if server and name and run else ""


def summarise(text: str) -> None:
    """Append the text to the summary of the current job.

    Raises StepError outside a workflow.
    """
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        raise StepError("GITHUB_STEP_SUMMARY isn't set: run this command in a job of a workflow")
    with Path(file).open("a") as summary:
        summary.write(f"{text}\n")


def comment(number: int, body: str, mark: str) -> str:
    """Write the comment with this mark, or edit it, and return its address. Only comments of bots are edited.

    Raises StepError when GitHub refuses.
    """
    try:
        issue = repository().get_issue(number)
        for found in issue.get_comments():
            if mark in (found.body or "") and found.user.type == "Bot":
                found.edit(body)
                return found.html_url
        return issue.create_comment(body).html_url
    except GithubException as error:
        raise StepError(_told(error)) from None


def keep_issue(title: str, body: str, mark: str, *, wanted: bool) -> str:
    """Open, update or close the issue with this mark, and return what was done.

    Raises StepError when GitHub refuses.
    """
    try:
        here = repository()
        for found in here.get_issues(state="open"):
            if mark in (found.body or "") and found.user.type == "Bot" and found.pull_request is None:
                if wanted:
                    found.edit(title=title, body=body)
                    return f"updated {found.html_url}"
                found.create_comment("The latest run found no differences.")
                found.edit(state="closed")
                return f"closed {found.html_url}"
        return f"opened {here.create_issue(title, body).html_url}" if wanted else "nothing to tell"
    except GithubException as error:
        raise StepError(_told(error)) from None


def release(tag: str, notes: str) -> str:
    """Create the tag's release, or update its notes, and return its address.

    Raises StepError when GitHub refuses.
    """
    try:
        here = repository()
        for found in here.get_releases():
            if found.tag_name == tag:
                return found.update_release(name=tag, message=notes).html_url
        return here.create_git_release(tag, tag, notes).html_url
    except GithubException as error:
        raise StepError(_told(error)) from None


def _told(error: GithubException) -> str:
    message = error.data.get("message", "") if isinstance(error.data, dict) else str(error.data)
    return f"GitHub answers {error.status} {message}: check the permissions of the job in its workflow (docs/ci.md)"
