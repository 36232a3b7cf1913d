"""What an account doesn't allow is told before anything is made there, each lack in one line with its remedy."""

import boto3
import pytest

from infra.deployment.account import check_account
from infra.errors import PreflightError
from infra.settings import AwsSettings, load_settings
from tests.infra.support.account import Account
from tests.infra.support.aws import BASE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("moto")]


def settings(**changed: str) -> AwsSettings:
    found = load_settings({f"atlas:{key}": value for key, value in {**BASE, **changed}.items()})
    assert isinstance(found, AwsSettings)
    return found


def refusal(**changed: str) -> str:
    """The one line that refuses these settings."""
    with pytest.raises(PreflightError) as error:
        check_account("dev", settings(**changed))
    (line,) = error.value.lines
    return line


def run(kind: str, count: int, **tags: str) -> None:
    client = boto3.client("ec2")
    client.run_instances(
        ImageId=client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"], InstanceType=kind,
        MinCount=count, MaxCount=count,
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        ] if tags else [],
    )  # fmt: skip


def test_account_that_allows_everything_is_not_mentioned() -> None:
    assert check_account("dev", settings()) == []
    # Nothing was started to find out.
    assert boto3.client("ec2").describe_instances()["Reservations"] == []


def test_zone_that_eks_refuses_is_told_by_its_id_with_the_zones_that_will_do() -> None:
    # moto's account has use1-az3 under the letter e.
    assert refusal(zones='["a","e"]') == (
        "atlas:zones names e, but us-east-1e is use1-az3 in this account, where EKS creates no cluster: "
        "choose two of a, b, c, d, f"
    )


def test_zone_that_the_account_does_not_have_is_told() -> None:
    assert refusal(zones='["z","b"]').startswith("atlas:zones names z, but this account has no zone us-east-1z: choose")


def test_types_that_the_region_or_a_zone_does_not_offer_are_told() -> None:
    assert (
        refusal(nodeType="t3.smal") == "atlas:nodeType is t3.smal, which us-east-1 doesn't offer: choose another type"
    )
    # moto's data have it in a, b and c.
    told = refusal(nodeType="c5d.12xlarge", zones='["b","d"]')
    assert told == "atlas:zones names d, but us-east-1d doesn't offer c5d.12xlarge: choose two of a, b, c"


def test_free_plan_refuses_the_hosts_type_and_not_the_nodes(account: Account) -> None:
    account.plan = "FREE"
    told = refusal()
    assert told.startswith("atlas:hostType is t3.medium, which the account's Free plan refuses: upgrade the account to")
    assert "t3.small" in told
    assert "t4g" not in told  # the hosts' image is for x86-64
    assert check_account("dev", settings(hostType="t3.small")) == []


def test_dry_run_tells_the_free_plan_too(account: Account) -> None:
    account.plan, account.refused = None, {"t3.medium"}
    assert "atlas:hostType is t3.medium, which the account's Free plan refuses" in refusal()


def test_account_older_than_plans_is_fine(account: Account) -> None:
    account.plan = None
    assert check_account("dev", settings()) == []


def test_new_accounts_quota_is_too_small_and_the_line_asks_for_more(account: Account) -> None:
    account.quota = 5
    assert refusal() == (
        "dev needs 6 vCPUs (1 x t3.small and 2 x t3.medium), but the account may have 5 in us-east-1: ask for more, "
        "`aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-1216C47A "
        "--desired-value 6 --region us-east-1`, and wait until AWS has agreed"
    )


def test_instances_of_others_count_and_the_stacks_own_do_not(account: Account) -> None:
    account.quota = 8
    run("t3.small", 1)
    assert check_account("dev", settings()) == []
    run("t3.small", 1, project="atlas", stack="prod")
    assert (
        "(1 x t3.small and 2 x t3.medium), but the account may have 8 in us-east-1, of which others use 4" in refusal()
    )
    # Of another quota.
    run("g4dn.xlarge", 1)
    assert "of which others use 4" in refusal()
    # A stack that runs has what it needs, whatever the quota is now.
    run("t3.medium", 2, project="atlas", stack="dev")
    run("t3.small", 1, **{"eks:cluster-name": "flask-app-cluster"})
    assert check_account("dev", settings()) == []


def test_every_lack_is_told_at_once(account: Account) -> None:
    account.plan, account.quota = "FREE", 5
    with pytest.raises(PreflightError) as error:
        check_account("dev", settings(zones='["e","b"]'))
    assert [line.split(" ")[0] for line in error.value.lines] == ["atlas:zones", "atlas:hostType", "dev"]


def test_caller_who_may_not_look_is_told_and_goes_on(account: Account) -> None:
    account.denied = {"freetier", "dry-run"}
    (line,) = check_account("dev", settings())
    assert line.startswith("the account's plan can't be checked before the start: denied (")
    # A role that may only start instances in the stack's network is refused the dry run, which says nothing of plans.
    account.denied = {"dry-run"}
    assert check_account("dev", settings()) == []
