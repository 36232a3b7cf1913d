"""`atlas` on an AWS stack, as a person types it: real command and engine, recorded AWS, a stand-in for the AWS CLI."""

import json
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import yaml

from infra.engine.stack import AtlasStack
from infra.engine.unrecorded import NAMED
from infra.engine.workspace import stack_settings
from tests.infra.conftest import Checkout
from tests.infra.recording.provider import Recorder
from tests.infra.recording.run import REPOSITORY, SAVED_AT_THE_END, attached
from tests.infra.recording.world import World
from tests.infra.support.aws import BASE, DIGEST
from tests.infra.support.homes import home_without_logs
from tests.infra.support.leftovers import client, specification

IDENTITY = {"Account": "123456789012", "Arn": "arn:aws:sts::123456789012:assumed-role/deploy/me"}
AWS = f"""#!/bin/sh
case "$*" in
  --version) echo aws-cli/2.36.11 ;;
  "sts get-caller-identity"*) echo '{json.dumps(IDENTITY)}' ;;
  *) exit 1 ;;
esac
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def account(checkout: Checkout, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An account to which the recorded world answers, and moto, empty, to who looks for leftovers."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "aws").write_text(AWS)
    (tools / "aws").chmod(0o755)
    (tmp_path / "state").mkdir()
    variables = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PULUMI_BACKEND_URL": (tmp_path / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "a passphrase",
        "PULUMI_HOME": str(home_without_logs(tmp_path / "pulumi")),
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        **SAVED_AT_THE_END,
    }
    world = World(tmp_path / "record.jsonl")
    settings(checkout)
    with attached(world) as providers:
        for name, value in {**variables, **providers}.items():
            monkeypatch.setenv(name, value)
        yield world


def settings(checkout: Checkout, **changed: object) -> None:
    document = {f"atlas:{key}": yaml.safe_load(value) for key, value in BASE.items()}
    document |= {f"atlas:{key}": value for key, value in changed.items()}
    (checkout.path / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": document}))


def use_dvc(checkout: Checkout) -> None:
    """Make the copy, which is no git repository, one of DVC."""
    folder = checkout.path / ".dvc"
    folder.mkdir()
    shutil.copy(REPOSITORY / ".dvc/config", folder)
    (folder / "config.local").write_text("[core]\n    no_scm = true\n")


def test_stack_comes_up_is_shown_feeds_dvc_and_goes(checkout: Checkout, account: World) -> None:
    use_dvc(checkout)
    assert "is not up" in checkout.atlas("status", "--stack", "dev", code=1).stdout
    assert "no bucket yet" in checkout.atlas("dvc-remote", "--stack", "dev", code=1).stderr
    foreseen = json.loads(checkout.atlas("preview", "--stack", "dev", "--json").stdout)
    assert foreseen["changes"]["create"] > 100
    assert account.existing() == {}

    # The recorded load balancer answers nobody, and that is said.
    done = checkout.atlas("up", "--stack", "dev", "--wait", "0", code=1)
    assert "doesn't answer, and a pod can't be asked: " in done.stderr
    assert "atlas rollback --stack dev" in done.stderr.splitlines()[-1]
    assert re.search(r"^1\d\d changed \(\d+\.\d s\)$", done.stderr, re.MULTILINE)
    done = checkout.atlas("up", "--stack", "dev", "--no-smoke")
    assert re.search(r"^nothing changed \(\d+\.\d s\)$", done.stderr, re.MULTILINE)
    assert "service" in done.stdout
    assert ".elb.us-east-1.amazonaws.com:5000" in done.stdout
    assert "aws ssm start-session" in done.stdout

    again = json.loads(checkout.atlas("up", "--stack", "dev", "--json", "--no-smoke").stdout)
    assert again["changes"] == {}
    # On another machine the stack file is as it was committed, and stays so.
    settings(checkout)
    committed = (checkout.path / "Pulumi.dev.yaml").read_bytes()
    told = json.loads(checkout.atlas("status", "--stack", "dev", "--json", code=1).stdout)
    assert told["healthy"] is False
    assert told["parts"]["service"]["healthy"] is False
    # moto's account has no cluster, and no hosts.
    assert told["parts"]["cluster"]["healthy"] is None
    assert "flask-app-cluster" in told["parts"]["cluster"]["what"]
    assert "its instance is gone" in told["parts"]["grafana"]["what"]
    assert (told["last"]["kind"], told["last"]["result"]) == ("update", "succeeded")

    calls = len(account.calls())
    for setting, value, told_of, commands in (
        ("zones", ["a", "c"], "[a, c], but dev is deployed in [a, b], ", [["preview"], ["up"]]),
        ("appName", "other", "other, but dev is deployed with flask-app, ", [["preview"], ["up"]]),
        ("clusterName", "other", "other, but dev is deployed with flask-app-cluster, ", [["destroy", "--yes"]]),
    ):
        settings(checkout, **{setting: value})
        for command in commands:
            refused = checkout.atlas(*command, "--stack", "dev", code=1).stderr
            assert refused.startswith(f"atlas: atlas:{setting} is {told_of}")
            assert len(refused.splitlines()) == 1
    assert len(account.calls()) == calls
    settings(checkout)

    checkout.atlas("dvc-remote", "--stack", "dev")
    assert (checkout.path / "Pulumi.dev.yaml").read_bytes() == committed
    local = (checkout.path / ".dvc/config.local").read_text()
    assert f"url = {told['outputs']['dvcRemote']}" in local
    assert "remote = dev" in local
    assert "is .atlas/dvc-remote again" in checkout.atlas("dvc-remote", "--stack", "local").stdout
    assert "remote = dev" not in (checkout.path / ".dvc/config.local").read_text()
    # Twice is once.
    assert json.loads(checkout.atlas("dvc-remote", "--stack", "local", "--json").stdout) == {
        "remote": ".atlas/dvc-remote"
    }

    assert "Removed:" in checkout.atlas("destroy", "--stack", "dev", "--yes").stdout
    assert account.existing() == {}
    assert "nothing" in checkout.atlas("destroy", "--stack", "dev", "--yes").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("status", "--stack", "dev"), 1, "The stack dev is not up: `atlas up --stack dev`"),
        (("logs", "--stack", "dev", "--part", "control-plane"), 1, "/aws/eks/flask-app-cluster/cluster can't be read"),
        (("smoke", "--stack", "dev"), 1, "the stack dev is not up: `atlas up --stack dev` creates it"),
        (("refresh", "--stack", "dev"), 1, "the stack dev is not up: `atlas up --stack dev` creates it"),
        (("rollback", "--stack", "dev", "--yes"), 1, "dev runs no image of its own repository"),
        (("promote", "dev", "prod", "--yes"), 1, "dev runs no image of its own repository: `atlas up --stack dev`"),
        (("dvc-remote", "--stack", "dev"), 1, "the stack dev has no bucket yet: `atlas up --stack dev` makes it"),
        (("ci", "pull", "--stack", "dev"), 0, "dvc pull: "),
        (("preview", "--stack", "dev", "--deployed"), 0, "dev isn't deployed: there is nothing to compare"),
        (("destroy", "--stack", "dev", "--yes"), 0, "Removed: nothing (there was nothing).\nNothing of dev is left.\n"),
        (("destroy", "--stack", "dev", "--yes", "--k8s-unreachable", "--remove-stack"), 0, "Nothing of dev is left.\n"),
    ],
)
def test_stack_that_was_never_up_is_not_made_by_a_command_that_makes_nothing(
    checkout: Checkout,
    account: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    use_dvc(checkout)
    # As they are committed, comments and all; but for who may run it, and what would need Docker.
    dev = (REPOSITORY / "Pulumi.dev.yaml").read_text().replace("role/atlas-deploy", "role/deploy")
    for stack, image in (("dev", DIGEST), ("prod", "promoted")):
        (checkout.path / f"Pulumi.{stack}.yaml").write_text(f"{dev}  atlas:image: {image}\n")
    before = {file.name: file.read_bytes() for file in checkout.path.glob("Pulumi.*")}
    done = checkout.atlas(*arguments, code=code)
    assert told in done.stdout + done.stderr
    assert {file.name: file.read_bytes() for file in checkout.path.glob("Pulumi.*")} == before
    assert not (tmp_path / "state/.pulumi/stacks").exists()
    assert account.calls() == []


def test_refresh_tells_one_document(checkout: Checkout, account: World) -> None:
    settings = stack_settings("dev", checkout.path)
    AtlasStack("dev", settings, lambda _: None, checkout.path).open()
    assert json.loads(checkout.atlas("refresh", "--stack", "dev", "--json").stdout) == {"gone": 0, "changes": {}}
    assert "all as it should be" in checkout.atlas("refresh", "--stack", "dev").stdout


def test_what_a_hand_did_in_the_cluster_is_named_by_preview_and_undone_by_up(
    checkout: Checkout, account: World
) -> None:
    checkout.atlas("up", "--stack", "dev", "--no-smoke")
    (service,) = account.of("core/v1:Service")
    account.vanish(service)
    told = "deleted by hand, `up` creates it again: flask-app-service"
    seen = checkout.atlas("preview", "--stack", "dev", "--expect-no-changes", code=3).stderr
    assert told in seen
    assert seen.splitlines()[-1] == "atlas: dev isn't as it was deployed: flask-app-service"
    assert json.loads(checkout.atlas("preview", "--stack", "dev", "--json").stdout)["byHand"] == [told]
    done = checkout.atlas("up", "--stack", "dev", "--no-smoke", "--json")
    assert told in done.stderr
    assert json.loads(done.stdout)["changes"] == {"flask-app-service": "create"}
    assert "by hand" not in checkout.atlas("preview", "--stack", "dev", "--expect-no-changes").stderr

    scale(account, replicas=3)
    told = "changed by hand, `up` sets it back: flask-app-deployment (spec.replicas)"
    assert told in checkout.atlas("preview", "--stack", "dev", "--expect-no-changes", code=3).stderr
    refreshed = checkout.atlas("refresh", "--stack", "dev").stdout
    assert refreshed == "1 changed: `atlas preview --stack dev` shows what `up` sets back\n"
    done = checkout.atlas("up", "--stack", "dev", "--no-smoke", "--json")
    assert json.loads(done.stdout)["changes"] == {"flask-app-deployment": "update"}


def scale(account: World, replicas: int) -> None:
    """What `kubectl scale` does."""
    deployment = next(call for call in account.of("apps/v1:Deployment") if call.name == "flask-app-deployment")
    scaled = {
        key: {**value, "spec": {**value["spec"], "replicas": replicas}}
        for key, value in (("inputs", deployment.inputs), ("outputs", deployment.outputs))
    }
    account.note(**{**asdict(deployment), **scaled, "operation": "update"})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"accountId": "210987654321"}, "belong to account 123456789012"),
        ({"adminPrincipals": ["arn:aws:iam::123456789012:role/other"]}, "is not in atlas:adminPrincipals"),
        ({"apiAccessCidrs": ["0.0.0.0/33"]}, "Pulumi.dev.yaml: atlas:apiAccessCidrs.0: not an IPv4 network"),
        ({"image": "app:latest"}, "Pulumi.dev.yaml: atlas:image: "),
        ({"mlflowToken": "plain"}, "atlas:mlflowToken must be encrypted"),
        ({"typo": 1}, "Pulumi.dev.yaml: atlas:typo is not a setting"),
        ({"zones": ["a", "e"]}, "us-east-1e is use1-az3 in this account, where EKS creates no cluster"),
    ],
)
def test_mistake_is_one_line_before_anything_is_made(
    checkout: Checkout, account: World, changed: dict[str, object], told: str
) -> None:
    settings(checkout, **changed)
    failed = checkout.atlas("up", "--stack", "dev", code=1)
    assert told in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert account.calls() == []


def test_place_for_the_state_is_asked_for(checkout: Checkout, account: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL")
    failed = checkout.atlas("up", "--stack", "dev", code=1)
    assert "PULUMI_BACKEND_URL is not set" in failed.stderr
    monkeypatch.setenv("PULUMI_BACKEND_URL", "a-bucket")
    (told,) = checkout.atlas("up", "--stack", "dev", code=1).stderr.splitlines()
    assert told.startswith("atlas: PULUMI_BACKEND_URL is 'a-bucket', which is not an address: ")
    # One that the engine can't use is told in the engine's words.
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///nonexistent")
    told = checkout.atlas("up", "--stack", "dev", code=1).stderr.splitlines()[-1]
    assert told.startswith("atlas: ")
    assert "no such file or directory" in told
    assert "error:" not in told
    assert "-1 is not in the range x>=0" in checkout.atlas("up", "--wait", "-1", code=2).stderr
    assert account.calls() == []


def test_missing_bundle_is_told_unless_an_image_is_given(checkout: Checkout, account: World) -> None:
    (checkout.path / "models/bundle/bundle.json").unlink()
    document = yaml.safe_load((checkout.path / "Pulumi.dev.yaml").read_text())
    del document["config"]["atlas:image"]
    (checkout.path / "Pulumi.dev.yaml").write_text(yaml.safe_dump(document))
    assert "make repro" in checkout.atlas("preview", "--stack", "dev", code=1).stderr
    assert account.calls() == []


def test_failure_in_the_middle_is_named_and_the_next_up_goes_on(checkout: Checkout, account: World) -> None:
    account.fail("create", 30, "InternalError: the service is out of order")
    failed = checkout.atlas("up", "--stack", "dev", "--wait", "0", code=1)
    assert "the service is out of order" in failed.stderr
    assert "Traceback" not in failed.stderr
    half = json.loads(checkout.atlas("status", "--stack", "dev", "--json", code=1).stdout)
    assert half["resources"] > 20
    assert (half["last"]["kind"], half["last"]["result"]) == ("update", "failed")
    shown = checkout.atlas("status", "--stack", "dev", code=1).stdout
    assert f"The stack dev is not up: {half['resources']} resources exist nevertheless" in shown
    assert "Last: update failed, " in shown
    checkout.atlas("up", "--stack", "dev", "--no-smoke")
    checkout.atlas("destroy", "--stack", "dev", "--yes")
    assert account.existing() == {}


def test_credentials_that_end_in_the_middle_are_one_line_and_the_next_up_goes_on(
    checkout: Checkout, account: World
) -> None:
    ended = "ExpiredToken: The security token included in the request is expired"
    account.fail("create", 30, ended)
    # Nothing is rolled back either: that would need them, too.
    failed = checkout.atlas("up", "--stack", "dev", "--no-smoke", "--rollback-on-failure", code=1)
    (told,) = [line for line in failed.stderr.splitlines() if line.startswith("atlas: ")]
    assert told.startswith("atlas: the AWS credentials are no longer valid")
    assert told.endswith(
        "log in again (`aws sso login`, or a new session of the role), and the same command continues from here"
    )
    begun = set(account.existing())
    assert begun

    checkout.atlas("up", "--stack", "dev", "--no-smoke")
    assert begun < set(account.existing())
    account.fail("read", 5, ended)
    failed = checkout.atlas("preview", "--stack", "dev", "--refresh", code=1)
    assert failed.stderr.splitlines()[-1] == told


def test_drift_from_what_is_deployed_is_seen_also_by_who_only_reads(checkout: Checkout, account: World) -> None:
    look = ("preview", "--stack", "dev", "--deployed", "--refresh", "--expect-no-changes", "--save", "look.json")
    never = checkout.atlas(*look)
    assert "dev isn't deployed: there is nothing to compare" in never.stderr
    checkout.atlas("up", "--stack", "dev", "--no-smoke")
    # main has gone on since: another image is no drift.
    settings(checkout, image=DIGEST.replace("a" * 64, "b" * 64))
    assert json.loads((checkout.path / "look.json").read_text())["steps"] == []
    checkout.atlas(*look)

    # A role that only reads is refused some of it.
    account.fail_each_once("read", "AccessDenied: not for you", tokens=(":SecretVersion", ":Deployment", ":Namespace"))
    assert "not for you" in checkout.atlas(*look, code=1).stderr
    assert "not for you" in json.loads((checkout.path / "look.json").read_text())["errors"][0]
    account.fail_each_once("read", "AccessDenied: not for you", tokens=(":SecretVersion", ":Deployment", ":Namespace"))
    checkout.atlas(*look, "--reader")
    seen = json.loads((checkout.path / "look.json").read_text())
    assert seen["unseen"] == ["objects in the cluster", "secrets' values"]

    topic = account.of("aws:sns/topic:Topic")[0]
    account.vanish(topic)
    gone = checkout.atlas(*look, "--reader", code=3)
    # With the topic all that names it will change: its publishers.
    named = gone.stderr.partition("dev isn't as it was deployed: ")[2].strip().split(", ")
    assert {topic.name, "atlas-dev-grafana-status", "atlas-dev-prometheus-status", "prometheus-policy"} <= {*named}
    steps = json.loads((checkout.path / "look.json").read_text())["steps"]
    assert {step["name"]: step["operation"] for step in steps}[topic.name] == "create"


@pytest.mark.parametrize(
    ("command", "operation", "more"), [("up", "create", "--no-smoke"), ("destroy", "delete", "--yes")]
)
def test_command_killed_again_and_again_is_taken_up_by_the_next(
    checkout: Checkout,
    account: World,
    command: str,
    operation: str,
    more: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGKILL of the command itself, which takes the program away from its engine: at its begin, in its middle, near
    its end."""
    if command == "destroy":
        checkout.atlas("up", "--stack", "dev", "--no-smoke")
    for name in SAVED_AT_THE_END:
        monkeypatch.delenv(name)
    deleted: list[str] = []
    for moment in (1, 30, 80):
        account.slow(0.2)
        running = checkout.start(command, "--stack", "dev", more)
        while len(account.calls(operation)) < moment:
            assert running.poll() is None
            time.sleep(0.05)
        engine = psutil.Process(running.pid).children(recursive=True)
        running.kill()
        told = checkout.finish(running).stderr
        assert ("was killed; its lock is released" in told) is (moment > 1)
        assert [name for name in deleted if name not in told] == []
        # Without the command the engine ends by itself, or is killed with the machine; its plugins end with it.
        _, left = psutil.wait_procs(engine, timeout=30)
        for process in left:
            if process.name() == "pulumi":
                process.kill()
        _, left = psutil.wait_procs(left, timeout=30)
        assert left == []
        deleted = delete_by_hand(account) if command == "up" else []
    account.slow(0)
    told = checkout.atlas(command, "--stack", "dev", more).stderr
    assert "was killed; its lock is released" in told
    assert [name for name in deleted if name not in told] == []
    if command == "up":
        checkout.atlas("preview", "--stack", "dev", "--expect-no-changes")
    else:
        assert account.existing() == {}


def delete_by_hand(account: World, but: Collection[str] = ()) -> list[str]:
    """Delete what the killed run created without recording it, and what `up` finds by its tags only: it looks in moto's
    account, where the recorded world's resources aren't.

    `up` can't simply create another, because a network can't have two subnets with the same range.
    """
    state = Path(urlsplit(os.environ["PULUMI_BACKEND_URL"]).path, ".pulumi/stacks/atlas/dev.json")
    resources = json.loads(state.read_text())["checkpoint"]["latest"].get("resources") or []
    noted = {f"{resource['type']} {resource.get('id')}" for resource in resources}
    found = {*NAMED, *but}
    strays = [call for call in account.existing().values() if call.key not in noted and call.token not in found]
    for call in strays:
        account.vanish(call)
    return [call.name for call in strays]


VPC, SUBNET = "aws:ec2/vpc:Vpc", "aws:ec2/subnet:Subnet"


class Networks(Recorder):
    """The recorded AWS, whose networks and subnets are in moto's account too, with the same ids."""

    def _made(self, token: str, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        identifier, outputs = super()._made(token, name, inputs)
        ec2 = client("ec2")
        if token == VPC:
            made = ec2.create_vpc(CidrBlock=inputs["cidrBlock"], TagSpecifications=specification("vpc", inputs["tags"]))
            identifier = made["Vpc"]["VpcId"]
        elif token == SUBNET:
            made = ec2.create_subnet(
                VpcId=inputs["vpcId"],
                CidrBlock=inputs["cidrBlock"],
                AvailabilityZone=inputs["availabilityZone"],
                TagSpecifications=specification("subnet", inputs["tags"]),
            )
            identifier = made["Subnet"]["SubnetId"]
        return identifier, outputs


def test_subnet_of_a_killed_run_is_found_by_its_tags_and_adopted(
    checkout: Checkout, account: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SAVED_AT_THE_END:
        monkeypatch.delenv(name)
    with attached(account, aws=Networks) as providers:
        for name, value in providers.items():
            monkeypatch.setenv(name, value)

        def kill(operation: str, urn: str) -> None:
            """The engine ends when a subnet exists, and before it knows."""
            if operation == "create" and f"{SUBNET}::" in urn:
                for process in psutil.Process(running.pid).children(recursive=True):
                    if process.name() == "pulumi":
                        process.kill()

        account.after = kill
        running = checkout.start("up", "--stack", "dev", "--no-smoke")
        assert checkout.finish(running).returncode == 1
        account.after = None
        made = {call.id: call.name for call in account.of(SUBNET)}
        assert made
        # Of the other types, this account has nothing that could be found.
        delete_by_hand(account, but=(VPC, SUBNET))

        told = checkout.atlas("up", "--stack", "dev", "--no-smoke").stderr
        (line,) = (line for line in told.splitlines() if "checking whether it created" in line)
        assert [name for name in made.values() if name not in line] == []
        created = [call.name for call in account.created() if call.token == SUBNET]
        assert len(created) == len(set(created)) == len(account.of(SUBNET))
        assert made.items() <= {call.id: call.name for call in account.of(SUBNET)}.items()
        checkout.atlas("preview", "--stack", "dev", "--expect-no-changes")
