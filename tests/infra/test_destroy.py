"""`atlas destroy` on an AWS stack, as a person types it: recorded AWS, and leftovers in an account that moto plays."""

import json
import signal

import pytest

from tests.infra.conftest import Checkout
from tests.infra.recording.world import World
from tests.infra.support.leftovers import Estate
from tests.infra.support.waiting import eventually
from tests.infra.test_aws_cli import account, settings

__all__ = ["account"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DESTROY = ("destroy", "--stack", "dev")


def test_stack_is_swept_and_what_is_left_named_until_nothing_is(checkout: Checkout, account: World) -> None:
    refused = checkout.atlas(*DESTROY, code=1)
    assert "without a terminal nobody can be asked: `atlas destroy --stack dev --yes`" in refused.stderr

    checkout.atlas("up", "--stack", "dev", "--wait", "0", "--no-smoke")
    estate = Estate("dev", "flask-app-cluster", "10.20.0.0/16")
    made = estate.sweepable()
    # Something hangs on the network still.
    account.fail("delete", 30, "DependencyViolation: The vpc has dependencies and cannot be deleted")
    done = checkout.atlas(*DESTROY, "--yes", "--json", "--pause", "0", code=3)
    assert "sweeping, then trying again" in done.stderr
    told = json.loads(done.stdout)
    assert account.existing() == {}
    assert "atlas-dev-vpc" in told["removed"]
    assert len(told["removed"]) > 80
    assert {line.split(" ")[-1] for line in told["swept"]} >= set(made.values()) - {made["security group"]}
    # moto gives a classic load balancer a group without tags: not swept, but named, as it is in the stack's network.
    assert {thing["kind"] for thing in told["left"]} == {"security group", "subnet", "VPC"}
    assert all(thing["id"] in thing["remedy"] for thing in told["left"])

    estate.vanish()
    done = checkout.atlas(*DESTROY, "--yes", "--remove-stack")
    assert "Nothing of dev is left" in done.stdout
    assert "The record of dev is removed" in done.stderr


def test_ctrl_c_ends_every_wait_and_the_same_command_goes_on(checkout: Checkout, account: World) -> None:
    said = checkout.path / "atlas.err"

    def interrupted(*command: str, when: str) -> list[str]:
        """What the command said after it was told to end."""
        running = checkout.start(*command)
        eventually(lambda: when in said.read_text(), when, patience=240, pause=0.1)
        there = account.existing()
        running.send_signal(signal.SIGINT)
        done = checkout.finish(running)
        assert done.returncode == 130, done.stderr
        assert done.stderr.endswith(f"atlas: interrupted; `atlas {command[0]}` again continues from here\n")
        if "removing" not in when:  # nothing was at work
            assert account.existing() == there != {}
        return done.stderr.split(when, 1)[1].splitlines()

    # While it waits for the load balancer, which answers nobody here.
    after = interrupted("up", "--stack", "dev", "--wait", "600", when=" s)\n")
    assert len(after) == 1
    # Between two tries.
    account.fail("delete", 30, "DependencyViolation: The vpc has dependencies and cannot be deleted")
    interrupted(*DESTROY, "--yes", "--pause", "600", when="sweeping, then trying again")
    # While the engine is at work: it ends what it has begun, and isn't tried again although the error would pass.
    account.fail("delete", 3, "DependencyViolation: The vpc has dependencies and cannot be deleted")
    account.slow(1)
    after = interrupted(*DESTROY, "--yes", "--pause", "0", when="  removing ")
    assert after.count("interrupted: finishing the operations in progress") == 1
    assert not [line for line in after if "trying again" in line]
    account.slow(0)
    account.fail("delete", 0)
    assert account.existing() != {}

    done = checkout.atlas(*DESTROY, "--yes")
    assert "was killed" not in done.stderr
    assert account.existing() == {}


def test_credentials_that_end_in_the_middle_and_a_refusal_lose_nothing(checkout: Checkout, account: World) -> None:
    checkout.atlas("up", "--stack", "dev", "--wait", "0", "--no-smoke")
    account.fail("delete", 20, "ExpiredToken: The security token included in the request is expired")
    failed = checkout.atlas(*DESTROY, "--yes", code=1)
    assert "atlas: the AWS credentials are no longer valid" in failed.stderr.splitlines()[-1]
    account.fail("delete", 20, "AccessDenied: not authorized to perform ec2:DeleteSubnet")
    failed = checkout.atlas(*DESTROY, "--yes", code=1)
    assert "ec2:DeleteSubnet" in failed.stderr
    assert "trying again" not in failed.stderr
    checkout.atlas(*DESTROY, "--yes")
    assert account.existing() == {}


def test_protected_stack_is_refused_with_the_way_on(checkout: Checkout, account: World) -> None:
    settings(checkout, disposable=False)
    checkout.atlas("up", "--stack", "dev", "--wait", "0", "--no-smoke")
    there = len(account.existing())
    failed = checkout.atlas(*DESTROY, "--yes", code=1)
    assert "is protected" in failed.stderr
    assert "`atlas:disposable: true` in Pulumi.dev.yaml" in failed.stderr
    assert len(account.existing()) == there
