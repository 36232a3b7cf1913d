"""The cost table contains all resources of the program that AWS bills, with prices that have a source."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infra.cost.prices import prices
from infra.cost.table import savings, table, total
from infra.errors import SettingsError
from infra.settings import AwsSettings, load_settings
from tests.infra.support.aws import BASE, FULL, up

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[3]
FREE = {
    "aws:budgets/budget:Budget",  # an account's first two; its alarms go by mail
    "aws:sns/topic:Topic",  # the first thousand mails of a month
    "aws:sns/topicSubscription:TopicSubscription",
    "aws:ec2/vpcEndpoint:VpcEndpoint",  # of type Gateway
    "aws:eks/addon:Addon",  # AWS's own
    "aws:ec2/launchTemplate:LaunchTemplate",
    "aws:ec2/flowLog:FlowLog",  # its records are billed with their log group
}
FREE_KINDS = (
    "aws:iam/", "aws:ec2/route", "aws:ec2/subnet", "aws:ec2/vpc:", "aws:ec2/internetGateway", "aws:ec2/securityGroup",
    "aws:ec2/defaultSecurityGroup", "aws:ec2/volumeAttachment", "aws:vpc/securityGroup", "aws:eks/access",
    "aws:eks/podIdentity", "aws:ecr/lifecyclePolicy", "aws:s3/bucketLifecycle", "aws:s3/bucketOwnership",
    "aws:s3/bucketPolicy", "aws:s3/bucketPublic", "aws:s3/bucketServerSide", "aws:s3/bucketVersioning",
    "aws:s3/bucketObject", "aws:secretsmanager/secretVersion", "random:", "pulumi:",
)  # fmt: skip
"""Prefixes of resource types that are free; objects are counted with their buckets."""


def settings(given: dict[str, str]) -> AwsSettings:
    plain = {f"atlas:{key}": value.removeprefix("secret:") for key, value in given.items()}
    found = load_settings(plain)
    assert isinstance(found, AwsSettings)
    return found


@pytest.mark.parametrize(("variant", "given"), [("base", BASE), ("full", FULL)])
def test_nothing_that_the_program_makes_is_forgotten(variant: str, given: dict[str, str]) -> None:
    made = Counter(resource["type"] for resource in up(variant).state() if resource.get("custom"))
    billed = {
        kind: count
        for kind, count in made.items()
        if kind not in FREE and not kind.startswith(FREE_KINDS) and not kind.startswith("kubernetes:")
    }
    balancers = [
        resource
        for resource in up(variant).state()
        if resource["type"] == "kubernetes:core/v1:Service" and resource["inputs"]["spec"]["type"] == "LoadBalancer"
    ]
    billed["kubernetes:core/v1:Service"] = len(balancers)
    declared: Counter[str] = Counter()
    for line in table(settings(given)):
        if line.declares:
            kind, count = line.declares
            declared[kind] += count
    assert declared == billed


@pytest.mark.parametrize(("variant", "given"), [("base", BASE), ("full", FULL)])
def test_sizes_of_disks_and_machines_are_those_that_the_program_asks_for(variant: str, given: dict[str, str]) -> None:
    state = up(variant).state()

    def of(kind: str) -> list[dict[str, Any]]:
        return [resource["inputs"] for resource in state if resource["type"] == kind]

    lines = {line.what: line.monthly for line in table(settings(given))}
    disks = sum(one["rootBlockDevice"]["volumeSize"] for one in of("aws:ec2/instance:Instance"))
    (group,) = of("aws:eks/nodeGroup:NodeGroup")
    # The hosts' templates name no size; their instances do.
    (template,) = (
        one
        for one in of("aws:ec2/launchTemplate:LaunchTemplate")
        if "volumeSize" in one["blockDeviceMappings"][0]["ebs"]
    )
    nodes = group["scalingConfig"]["desiredSize"]
    (samples,) = of("aws:ebs/volume:Volume")
    disks += nodes * template["blockDeviceMappings"][0]["ebs"]["volumeSize"] + samples["size"]
    gp3 = sum(price for what, price in lines.items() if " GB of the nodes" in what or " GB of the hosts" in what)
    gp3 += lines[f"{samples['size']} GB of samples"]
    assert gp3 == pytest.approx(disks * prices().prices["disk"].usd)
    hosts = Counter(one["instanceType"] for one in of("aws:ec2/instance:Instance"))
    ((kind, count),) = hosts.items()
    assert lines[f"{count} x {kind}"] == pytest.approx(count * prices().instances.usd[kind] * prices().hours)


def test_the_seeds_set_up_costs_what_is_known() -> None:
    """Cluster, a t3.small, two t3.medium, NAT, load balancer: about 216 USD, and a few USD for keys, logs, storage."""
    assert 214 < total(table(settings(dict(BASE)))) < 224


def test_more_of_anything_costs_more() -> None:
    least = total(table(settings(dict(BASE))))
    for key, value in {"nat": "per-az", "hostType": "t3.large", "dataDiskGb": "500", "imagesKept": "100",
                       "operatorCidrs": '["198.51.100.0/24"]', "hostDiskGb": "80"}.items():  # fmt: skip
        assert total(table(settings({**BASE, key: value}))) > least, key
    assert total(table(settings(dict(BASE)), traffic_gb=500)) > least + 400 * prices().prices["traffic_out"].usd


def test_savings_are_what_the_changed_settings_really_cost_less() -> None:
    given = settings({**BASE, "nat": "per-az", "disposable": "false"})
    found, least = savings(given)
    changes = {saving.change: saving.monthly for saving in found}
    assert changes["atlas:nat: single"] == pytest.approx(730 * (0.045 + 0.005))
    assert not any("at night" in change for change in changes)  # its data would be gone in the morning
    assert least == pytest.approx(total(table(given)) - sum(changes.values()))


def test_a_disposable_stack_is_halved_by_going_home() -> None:
    given = settings(dict(BASE))
    found, least = savings(given)
    assert "destroyed at night" in found[0].change
    assert found[0].monthly > total(table(given)) / 2
    assert least < total(table(given)) / 2


def test_saving_that_the_settings_forbid_is_not_offered() -> None:
    given = settings({**BASE, "nodeType": "t3.medium", "replicas": "7", "maxReplicas": "8", "disposable": "false"})
    assert not any("t3.small" in saving.change and "nodeType" in saving.change for saving in savings(given)[0])


def test_every_price_has_its_source_and_is_used() -> None:
    known = prices()
    assert all(price.source.startswith("https://aws.amazon.com/") for price in known.prices.values())
    code = (REPOSITORY / "infra/cost/table.py").read_text()
    assert [name for name in known.prices if f'"{name}"' not in code] == []


def test_an_instance_type_without_a_price_is_one_clear_line() -> None:
    with pytest.raises(SettingsError, match=r"infra/cost/prices.yml has no price for p5.48xlarge; it has t3.micro, "):
        table(settings({**BASE, "hostType": "p5.48xlarge"}))


def atlas_cost(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli", "cost", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("stack", ["dev", "prod", "bootstrap"])
def test_command_prints_a_table_whose_total_is_its_sum(stack: str) -> None:
    done = atlas_cost("--stack", stack)
    assert done.returncode == 0, done.stderr
    head, _, _ = done.stdout.partition("USD a month")
    amounts = [float(line.split()[-1]) for line in head.splitlines()[:-1]]
    document = json.loads(atlas_cost("--stack", stack, "--json").stdout)
    assert sum(amounts) == pytest.approx(document["total"], abs=0.1)
    assert sum(line["monthly"] for line in document["lines"]) == pytest.approx(document["total"], abs=0.1)
    assert f"USD a month{document['total']:>56.2f}" in done.stdout


def test_local_stack_costs_nothing_and_an_unknown_one_is_named() -> None:
    assert "costs nothing" in atlas_cost("--stack", "local").stdout
    unknown = atlas_cost("--stack", "nope")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    assert "there is no stack 'nope'" in unknown.stderr
