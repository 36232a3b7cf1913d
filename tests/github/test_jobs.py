"""Each job's own steps, in order, on a clean clone: real commands, engine, Docker; recorded AWS (see runner.py)."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.github.conftest import commit, git, repro, write_stack
from tests.github.runner import Runner
from tests.github.server import GithubServer
from tests.infra.conftest import Checkout
from tests.infra.plugins import found
from tests.infra.test_release import HOST, Account, account_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

REQUEST = {
    "pull_request": {
        "number": 7,
        "user": {"login": "me"},
        "base": {"ref": "main"},
        "head": {"ref": "change", "repo": {"full_name": "o/r"}},
    }
}
FORK = {"pull_request": {**REQUEST["pull_request"], "head": {"ref": "change", "repo": {"full_name": "else/r"}}}}
VARIABLES = {
    "AWS_REGION": "us-east-1",
    "ATLAS_PREVIEW_ROLE": "arn:aws:iam::123456789012:role/atlas-preview",
    "ATLAS_DRIFT_ROLE": "arn:aws:iam::123456789012:role/atlas-drift",
    "ATLAS_DEPLOY_ROLE": "arn:aws:iam::123456789012:role/atlas-deploy-dev",
    "ATLAS_DESTROY_ROLE": "arn:aws:iam::123456789012:role/atlas-destroy-dev",
}


def change(runner: Runner, trees: int = 40, *, locked: bool = True) -> Path:
    """A clone on a branch whose one commit changes a parameter of the model."""
    clone = runner.clone()
    git(clone, "checkout", "-q", "-b", "change")
    file = clone / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["model"]["estimators"]["trees"]["max_iter"] = trees
    file.write_text(yaml.safe_dump(params))
    if locked:
        repro(clone, runner.origin)
    commit(clone, "More trees")
    git(clone, "clean", "-fdxq")
    return clone


def copied(runner: Runner, clone: Path) -> Path:
    """Another clone as clean, with the same commits on the same branch: the runner takes one a run."""
    path = runner.clone()
    git(path, "fetch", "-q", str(clone), "change")
    git(path, "checkout", "-q", "-b", "change", "FETCH_HEAD")
    return path


# --- ci ---


def test_lint(runner: Runner) -> None:
    """The whole job, but with the types of a few modules: mypy takes a minute for all of them."""
    clone = runner.clone()
    project = clone / "pyproject.toml"
    files = 'files = ["infra", "ml", "service", "tests"]'
    assert files in project.read_text()
    project.write_text(project.read_text().replace(files, 'files = ["infra/ci/changelog.py", "infra/errors.py"]'))
    commit(clone, "Types of a few modules")
    said = runner.run("push", "ci", "lint", clone=clone)
    assert "All checks passed!" in said
    assert "Success: no issues found in" in said
    assert "actionlint" in said


@pytest.mark.parametrize("job", ["test", "policies"])
def test_tests_and_policies(runner: Runner, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of them: all would be this very run again."""
    chosen = {"test": "tests/infra/ci/test_changelog.py", "policies": "-k has_a_breach"}[job]
    monkeypatch.setitem(runner.environment, "PYTEST_ADDOPTS", chosen)
    said = runner.run("push", "ci", job, matrix={"python": "3.11"} if job == "test" else None)
    assert re.search(r"\b[1-9]\d* passed", said)


def test_pipeline_is_held_to_its_lock_and_made_again_and_the_image_is_tried(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    found.registry()
    monkeypatch.setitem(runner.environment, "IMAGE", "atlas-test-jobs")
    monkeypatch.setitem(runner.environment, "BUILD", f"--build-arg BASE_IMAGE={found.BASE_IMAGE}")
    said = runner.run("pull_request", "ci", "image", FORK, from_nothing=True)
    assert "the remote isn't there yet, or lacks some outputs" in said
    assert "dvc.lock belongs to this commit" in said
    assert "every output is, byte for byte, what dvc.lock names" in said
    assert "## What this change does" in said
    assert re.search(r"atlas-test-jobs: ready after .* answered .*predictions.*, stopped [\d.]+ s after", said)


def test_commit_without_its_lock_fails_with_the_command_that_mends_it(runner: Runner) -> None:
    said = runner.run("pull_request", "ci", "pipeline", REQUEST, clone=change(runner, locked=False), code=1)
    assert "the commit lacks its dvc.lock (model_building: params.yaml: model" in said
    assert "`make repro && git add dvc.lock reports && git commit`" in said


# --- with an account ---


@pytest.fixture
def account(
    origin: Path, runner: Runner, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Account]:
    """An account with nothing in it but dev's place, as `atlas bootstrap` leaves it; `main` has the settings."""
    with account_in(Checkout(origin, {}), tmp_path, monkeypatch) as made:
        use(runner, made, "dev", monkeypatch)
        monkeypatch.setattr(runner, "variables", {**VARIABLES, "PULUMI_BACKEND_URL": os.environ["PULUMI_BACKEND_URL"]})
        made.atlas("preview", "--stack", "dev")
        commit(origin, "dev")
        yield made
    git(origin, "checkout", "-q", ".")


def use(runner: Runner, account: Account, stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs find the providers of this stack's recorded world."""
    for name, value in account.providers(stack).items():
        monkeypatch.setitem(runner.environment, name, value)


def test_fork_gets_no_role_and_no_comment(runner: Runner, github: GithubServer) -> None:
    before = runner.roles.read_text() if runner.roles.exists() else ""
    runner.run(
        "pull_request", "preview", "preview", FORK, variables={**VARIABLES, "PULUMI_BACKEND_URL": "file://there"}
    )
    assert github.comments == []
    assert (runner.roles.read_text() if runner.roles.exists() else "") == before


def test_stack_from_its_first_comment_to_its_end(
    runner: Runner, account: Account, github: GithubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part takes the stack as the part before left it: a stack of its own would cost each a minute."""
    pull_request_gets_one_comment_on_model_and_stack(runner, account, github)
    drift_opens_one_issue_and_closes_it(runner, account, github)
    promotion_then_destroy(runner, account, monkeypatch)


def pull_request_gets_one_comment_on_model_and_stack(runner: Runner, account: Account, github: GithubServer) -> None:
    ours = change(runner)
    said = runner.run("pull_request", "preview", "preview", REQUEST, clone=copied(runner, ours), from_nothing=True)
    [comment] = github.comments
    assert comment["number"] == 7
    body = comment["body"]
    assert re.search(r"\| <code>test.log&#95;loss</code> \| [\d.]+ \([\d.]+ to [\d.]+\) \|", body)
    assert "```mermaid" in body
    assert "The stack <code>dev</code>" in body
    assert re.search(r"It would make 1\d\d", body)
    assert "| create | <code>atlas-dev" in body
    assert re.search(r"\nAnd \d+ more\.", body)
    assert "the comment: https://github.example/" in said
    assert account.world("dev").existing() == {}
    assert runner.roles.read_text().splitlines()[-1] == f"{VARIABLES['ATLAS_PREVIEW_ROLE']} 14400"

    # A preview that fails is told in it.
    bad = copied(runner, ours)
    write_stack(bad, "dev", {**account.settings("dev"), "apiAccessCidrs": ["0.0.0.0/0"]})
    commit(bad, "Open to all")
    runner.run("pull_request", "preview", "preview", REQUEST, clone=bad, code=1)
    [comment] = github.comments
    assert "**The preview failed:**" in comment["body"]
    assert "api-endpoint-restricted" in comment["body"]

    # Run again, on a stack that is up: the same comment, edited.
    account.deploy(1)
    runner.run("pull_request", "preview", "preview", REQUEST, clone=ours)
    [comment] = github.comments
    assert "Nothing would change." in comment["body"]


def drift_opens_one_issue_and_closes_it(runner: Runner, account: Account, github: GithubServer) -> None:
    quiet = runner.run("schedule", "drift", "drift", matrix={"stack": "dev"})
    assert "nothing to tell" in quiet
    topic = account.world("dev").of("aws:sns/topic:Topic")[0]
    account.world("dev").vanish(topic)
    for _ in range(2):
        runner.run("schedule", "drift", "drift", matrix={"stack": "dev"}, code=1)
    [issue] = github.issues
    assert issue["title"] == "The stack dev isn't as it was deployed"
    assert topic.name in issue["body"]
    # As the issue says.
    account.atlas("refresh", "--stack", "dev")
    account.atlas("up", "--stack", "dev", "--no-smoke")
    runner.run("schedule", "drift", "drift", matrix={"stack": "dev"})
    assert github.issues[0]["state"] == "closed"


def promotion_then_destroy(runner: Runner, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = account.runs("dev").partition("@")[2]
    assert digest.startswith("sha256:")
    use(runner, account, "prod", monkeypatch)
    said = runner.run("workflow_dispatch", "promote", "promote", variables={"ATLAS_DEPLOY_ROLE": "arn:prod"})
    assert f"Deploy {digest}" not in said  # nobody is asked: the environment's reviewers were
    assert account.runs("prod") == f"{HOST}/atlas-prod/flask-app@{digest}"
    assert runner.roles.read_text().splitlines()[-1] == "arn:prod 14400"

    use(runner, account, "dev", monkeypatch)
    typo = runner.run(
        "workflow_dispatch", "destroy", "destroy", {"inputs": {"stack": "dev", "confirm": "prod"}}, code=1
    )
    assert "--confirm says 'prod', the stack is 'dev': nothing is destroyed" in typo
    assert account.world("dev").existing() != {}
    done = runner.run("workflow_dispatch", "destroy", "destroy", {"inputs": {"stack": "dev", "confirm": "dev"}})
    assert "Nothing of dev is left" in done
    assert account.world("dev").existing() == {}
    # At night, where that is wanted: nothing is left to take down, and that is well.
    assert "Nothing of dev is left" in runner.run("schedule", "destroy", "destroy", variables={"ATLAS_NIGHTLY": "true"})
    assert "Nothing of dev" not in runner.run("schedule", "destroy", "destroy")


def test_release_has_the_commits_since_the_tag_before(runner: Runner, github: GithubServer) -> None:
    clone = runner.clone()
    git(clone, "tag", "v1.0.0", "HEAD^")
    git(clone, "tag", "v1.1.0")
    runner.run("push", "release", "release", {"ref": "refs/tags/v1.1.0"}, clone=clone)
    [release] = github.releases
    assert release["tag_name"] == "v1.1.0"
    assert release["body"].startswith("Since v1.0.0:\n\n- ")
