"""Rules for every workflow; `make lint` checks the rest with actionlint and zizmor."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.components.github_role import AUDIENCE, GITHUB
from infra.settings import BootstrapSettings
from tests.docs.documents import document
from tests.docs.test_commands import check_atlas, check_make
from tests.github.workflows import REPOSITORY, SETUP, Job, files, jobs, read, used
from tests.infra.policy.stacks import resources
from tests.infra.support.aws import up

PERMISSIONS = {
    "ci.lint": {"contents": "read"},
    "ci.test": {"contents": "read"},
    "ci.pipeline": {"contents": "read"},
    "ci.policies": {"contents": "read"},
    "ci.image": {"contents": "read"},
    "preview.preview": {"contents": "read", "id-token": "write", "pull-requests": "write"},
    "deploy.deploy": {"contents": "read", "id-token": "write"},
    "promote.promote": {"contents": "read", "id-token": "write"},
    "destroy.destroy": {"contents": "read", "id-token": "write"},
    "drift.drift": {"contents": "read", "id-token": "write", "issues": "write"},
    "release.release": {"contents": "write"},
}
CHANGES = {"deploy.deploy": "dev", "promote.promote": "prod", "destroy.destroy": "dev"}
"""Jobs that change a stack, with the default stack."""
SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "CAPSTONE_TEST"}
"""Secrets that an environment may have: the second choice in docs/ci.md."""
LONGEST_SESSION = BootstrapSettings.model_json_schema()["properties"]["sessionHours"]["maximum"]
"""Hours."""
EACH = pytest.mark.parametrize("job", jobs(), ids=str)


def text_of(job: Job) -> str:
    return json.dumps(job.body)


def test_no_job_has_permissions_that_it_does_not_need() -> None:
    assert {str(job): job.body.get("permissions") for job in jobs()} == PERMISSIONS
    assert [path.name for path in files() if read(path).get("permissions") != {}] == []


@EACH
def test_identity_token_is_for_jobs_that_take_a_role(job: Job) -> None:
    assert (job.body["permissions"].get("id-token") == "write") == (job.role is not None)


@pytest.mark.parametrize(("file", "action", "comment"), sorted({(file, *rest) for file, *rest in used()}))
def test_action_is_pinned_by_commit_with_its_version_beside_it(file: str, action: str, comment: str) -> None:
    if action.startswith("./"):
        assert (REPOSITORY / action / "action.yml").is_file()
        return
    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), f"{file}: {action}"
    assert re.fullmatch(r"v\d+\.\d+\.\d+", comment), f"{file}: {action} says no version"


def test_an_action_has_one_version_everywhere_and_docs_say_where_its_commit_was_seen() -> None:
    pins = {(*action.split("@"), comment) for _, action, comment in used() if not action.startswith("./")}
    assert len({name for name, *_ in pins}) == len(pins)
    rows = document("ci.md").rows("Actions")
    assert {name: tuple(cells[:2]) for name, cells in rows.items()} == {
        name: (version, f"`{commit}`") for name, commit, version in pins
    }
    assert [name for name, cells in rows.items() if not cells[2]] == []


@EACH
def test_run_lines_are_commands_that_a_person_can_type(job: Job) -> None:
    lines = [*job.runs, *(step["run"] for step in read(SETUP)["runs"]["steps"] if "run" in step)]
    for line in lines:
        words = line.strip().replace('"', "").split()
        assert "\n" not in line.strip()
        if words[0] == "make":
            check_make([word for word in words[1:] if not word.startswith("$")])
        else:
            assert words[0] == ".venv/bin/atlas", line
            # A variable is replaced by a stack or a tag.
            check_atlas([re.sub(r"\$\w+", "dev", word) for word in words[1:]])


@EACH
def test_nothing_that_others_write_gets_into_a_shell_line(job: Job) -> None:
    assert [line for line in job.runs if "${{" in line] == []
    # Text from outside reaches a command only through a variable, in quotation marks.
    assert [line for line in job.runs if re.search(r'(?<!")\$\w+', line)] == []
    assert "pull_request_target" not in job.on
    assert "issue_comment" not in job.on


@EACH
def test_secrets_are_few_and_an_environments(job: Job) -> None:
    found = set(re.findall(r"secrets\.(\w+)", text_of(job)))
    assert found <= SECRETS
    assert not found or "environment" in job.body
    assert "AKIA" not in text_of(job)
    # Only the step that writes to GitHub gets the job's token.
    with_token = [step for step in job.steps if "github.token" in json.dumps(step)]
    assert [step["run"].split()[:3] for step in with_token if step["run"].split()[1] != "ci"] == []
    assert "github.token" not in json.dumps({key: value for key, value in job.body.items() if key != "steps"})


@EACH
def test_checkout_leaves_no_token_behind(job: Job) -> None:
    [checkout] = [step for step in job.steps if str(step.get("uses", "")).startswith("actions/checkout@")]
    assert checkout["with"]["persist-credentials"] == "false" or checkout["with"]["persist-credentials"] is False


@EACH
def test_job_ends_and_is_not_in_its_own_way(job: Job) -> None:
    concurrency = job.body["concurrency"]
    cancels = concurrency["cancel-in-progress"]
    if str(job) in CHANGES:
        assert (
            re.sub(r"\$\{\{ inputs\.stack \|\| 'dev' \}\}", "dev", concurrency["group"]) == f"stack-{CHANGES[str(job)]}"
        )
        assert cancels is False
    elif job.workflow in ("ci", "preview"):
        assert "github.ref" in concurrency["group"]
    assert job.body["runs-on"] == "ubuntu-24.04"
    minutes = int(job.body["timeout-minutes"])
    assert minutes <= 360  # GitHub's own limit
    if job.role:
        # The command reports an expired session; a timeout would give no reason.
        assert minutes > LONGEST_SESSION * 60
        [credentials] = [step for step in job.steps if "configure-aws-credentials" in str(step.get("uses"))]
        assert credentials["with"]["role-duration-seconds"] == "${{ vars.ATLAS_SESSION_SECONDS || 14400 }}"


@pytest.mark.slow
def test_worst_destroy_is_within_a_session() -> None:
    """The worst case: all resources with a delete time limit need their full limit, one after another."""
    slow: dict[str, float] = {}
    for one in up("full").state():
        limit = float((one.get("customTimeouts") or {}).get("delete", 0))
        slow[one["type"]] = max(slow.get(one["type"], 0), limit)
    assert slow["kubernetes:core/v1:Service"] >= 1200
    assert sum(slow.values()) < LONGEST_SESSION * 3600


@pytest.mark.parametrize(
    "role", ["atlas-preview", "atlas-drift", "atlas-deploy-dev", "atlas-deploy-prod", "atlas-destroy-dev"]
)
@pytest.mark.slow
def test_role_trusts_exactly_the_jobs_that_take_it(role: str) -> None:
    [found] = [one for one in resources("bootstrap") if one.kind == "aws:iam/role:Role" and one.name == role]
    [statement] = json.loads(found.inputs["assumeRolePolicy"])["Statement"]
    condition = statement["Condition"]["StringEquals"]
    assert condition[f"{GITHUB}:aud"] == AUDIENCE
    prefix = "repo:OWNER/REPO:"
    trusted = {subject.removeprefix(prefix) for subject in condition[f"{GITHUB}:sub"]}
    assert all(subject.startswith(prefix) for subject in condition[f"{GITHUB}:sub"])
    assert trusted == {subject for job in jobs() if job.role and taken(job) == role for subject in job.subjects}


def taken(job: Job) -> str:
    """The role's name, from the variable that bootstrap sets in the repository or the job's environment."""
    stack = CHANGES.get(str(job), "")
    return {
        "${{ vars.ATLAS_PREVIEW_ROLE }}": "atlas-preview",
        "${{ vars.ATLAS_DRIFT_ROLE }}": "atlas-drift",
        "${{ vars.ATLAS_DEPLOY_ROLE }}": f"atlas-deploy-{stack}",
        "${{ vars.ATLAS_DESTROY_ROLE }}": f"atlas-destroy-{stack}",
    }[str(job.role)]


def test_variables_are_those_that_bootstrap_tells_github() -> None:
    asked = {name for path in (*files(), SETUP) for name in re.findall(r"vars\.(\w+)", path.read_text())}
    assert asked == set(document("ci.md").rows("Variables"))
    text = (REPOSITORY / "infra" / "bootstrap" / "variables.py").read_text()
    told = set(re.findall(r'"((?:PULUMI|AWS|ATLAS)_[A-Z_]+)": ', text))
    assert asked - told == {"ATLAS_NIGHTLY", "MLFLOW_TRACKING_URI"}  # a person's choice
    assert told <= asked


def test_forks_get_nothing_that_needs_credentials_and_a_summary_all_the_same() -> None:
    for job in jobs():
        if "pull_request" in job.on and job.role:
            assert "github.event.pull_request.head.repo.full_name == github.repository" in job.body["if"]
    [pipeline] = [job for job in jobs() if str(job) == "ci.pipeline"]
    assert any("--summary" in line for line in pipeline.runs)
    assert "if" not in pipeline.body


@pytest.mark.slow
def test_updates_are_proposed_for_all_that_is_locked() -> None:
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / ".github" / "dependabot.yml").read_text())
    covered = {
        (update["package-ecosystem"], folder.strip("/"))
        for update in config["updates"]
        for folder in update.get("directories", [update.get("directory")])
    }
    files = subprocess.run(["git", "ls-files", "*go.mod"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    locked = [Path(name) for name in files.stdout.split() if "require" in (REPOSITORY / name).read_text()]
    modules = {("gomod", str(path.parent)) for path in locked}
    assert len(modules) > 3
    assert covered == {
        ("github-actions", ""), ("github-actions", ".github/actions/setup"), ("pip", "requirements"), ("docker", ""),
    } | modules  # fmt: skip
