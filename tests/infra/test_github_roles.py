"""The roles of the bootstrap stack, as the engine records them: who is trusted with what."""

import json

import pytest

from infra.bootstrap.variables import variables_of
from infra.components.github_role import GITHUB
from infra.settings import AwsSettings
from tests.infra.policy.stacks import resources, settings_of
from tests.infra.support.iam import Statement, allows, statements
from tests.infra.test_permissions import HOME, KEY, STATE

pytestmark = pytest.mark.slow


def trusting(subject: str) -> list[str]:
    """The names of the roles that a job with this subject may assume."""
    return [
        one.name
        for one in resources("bootstrap")
        if one.kind == "aws:iam/role:Role"
        for statement in json.loads(one.inputs["assumeRolePolicy"])["Statement"]
        if f"repo:OWNER/REPO:{subject}" in statement["Condition"]["StringEquals"][f"{GITHUB}:sub"]
    ]


def given(role: str) -> list[Statement]:
    """The statements of the policies that are attached to a role; its policies' names begin with its name."""
    policies = {one.name: one.inputs["policy"] for one in resources("bootstrap") if one.kind == "aws:iam/policy:Policy"}
    attached = {one.name for one in resources("bootstrap") if "rolePolicyAttachment:" in one.kind}
    return statements(*(text for name, text in policies.items() if name in attached and name.startswith(f"{role}-")))


def reads(role: str, stack: str) -> set[bool]:
    """Whether the role reads the stack's state, and decrypts the secrets in it."""
    found = given(role)
    assert len(found) > 10
    key = {"kms__ResourceAliases": "alias/atlas-state", "kms__EncryptionContext__stack": stack}
    return {
        allows(found, "s3:GetObject", f"{STATE}/stacks/atlas/{stack}.json"),
        allows(found, "s3:GetObject", f"{STATE}/history/atlas/{stack}/1.history.json"),
        allows(found, "kms:Decrypt", KEY, **key),
        allows(found, "s3:GetObject", f"arn:aws:s3:::atlas-{stack}-data-bucket-1/dvc/x"),
    }


def test_pull_requests_read_the_state_of_disposable_stacks_alone() -> None:
    (role,) = trusting("pull_request")
    assert reads(role, "dev") == {True}
    assert reads(role, "prod") == {False}


def test_main_reads_the_state_of_every_stack() -> None:
    (role,) = trusting("ref:refs/heads/main")
    assert reads(role, "dev") == reads(role, "prod") == {True}


def test_only_a_disposable_stack_gives_pull_requests_a_role() -> None:
    prod = settings_of("prod")
    assert isinstance(prod, AwsSettings)
    outputs = {"backend": "s3://x", "driftRole": "drift", "prodDeployRole": "deploy"}
    assert "ATLAS_PREVIEW_ROLE" not in variables_of(HOME, {"prod": prod}, outputs)[""]
    told = variables_of(HOME, {"prod": prod}, {**outputs, "previewRole": "preview"})[""]
    assert (told["ATLAS_PREVIEW_ROLE"], told["ATLAS_DRIFT_ROLE"]) == ("preview", "drift")
