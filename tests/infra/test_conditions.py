"""The conditions of GitHub's roles, against the tags and keys of each request that the program's resources mean."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from infra.permissions.roles import deploy_policies
from tests.infra.recording.world import World
from tests.infra.support.aws import up
from tests.infra.support.iam import Statement, permits, statements
from tests.infra.support.requests import Request, Requests
from tests.infra.test_permissions import DEPLOY, DESTROY, PREVIEW, scope

pytestmark = pytest.mark.slow

DISK = "ec2:RunInstances of ec2/instance:Instance prometheus-instance on volume/*"


@pytest.fixture(scope="module")
def full() -> Requests:
    return Requests(up("full").world)


def refused(given: list[Statement], asked: Iterable[Request]) -> list[str]:
    """The requests that the statements don't allow."""
    return sorted(
        f"{request.action} of {request.of} on {request.resource.rsplit(':', 1)[-1]}"
        for request in asked
        if not permits(given, request.action, request.resource, request.context)
    )


def test_deploy_role_may_make_change_and_remove_each_resource_as_it_is_tagged(full: Requests) -> None:
    asked = [*full.make(), *full.read(), *full.read_new(), *full.remove()]
    assert len({request.action for request in asked}) > 150
    assert refused(DEPLOY, asked) == []


def test_destroy_role_may_remove_each_resource_as_it_is_tagged(full: Requests) -> None:
    assert refused(DESTROY, [*full.read(), *full.remove()]) == []


def test_preview_role_may_look_at_each_resource_as_it_is_tagged(full: Requests) -> None:
    assert refused(PREVIEW, full.read()) == []


def changed(folder: Path, *changes: tuple[str, str]) -> Requests:
    """The requests of the recorded world with these texts replaced in the inputs of the Prometheus host's parts."""
    lines = []
    for line in up("full").world.file.read_text().splitlines():
        call = json.loads(line)
        if call["name"].startswith("prometheus-"):
            text = json.dumps(call["inputs"])
            for old, new in changes:
                text = text.replace(old, new)
            call["inputs"] = json.loads(text)
        lines.append(json.dumps(call))
    file = folder / "record.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return Requests(World(file))


def test_disk_that_is_tagged_after_its_creation_is_refused(tmp_path: Path) -> None:
    """Tags of rootBlockDevice alone come in a later call: terraform-provider-aws, issues 35639, 36726, 41653."""
    told = refused(DEPLOY, changed(tmp_path, ('"launchTemplate"', '"launchTemplateBefore"')).make())
    assert DISK in told
    assert DISK.replace("volume/", "network-interface/") in told


def test_resources_with_the_tag_of_another_stack_are_refused(tmp_path: Path) -> None:
    told = refused(DEPLOY, changed(tmp_path, ('"stack": "dev"', '"stack": "prod"')).make())
    assert DISK in told
    assert any(line.startswith("ec2:CreateVolume of ebs/volume:Volume prometheus-data") for line in told), told
    assert any(line.startswith("ec2:CreateSecurityGroup of ec2/securityGroup") for line in told), told


def test_deploy_role_of_another_stack_may_remove_nothing_that_has_tags(full: Requests) -> None:
    other = scope("prod", disposable="false", clusterName="another")
    given = statements(*deploy_policies(other, []).values())
    tagged = [request for request in full.remove() if "aws:ResourceTag/stack" in request.context]
    assert len(tagged) > 30
    assert len(refused(given, tagged)) == len(tagged)
