"""The policy pack under the real engine: what it allows, what it refuses, when, and with which messages."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest

from infra.engine.workspace import POLICIES
from infra.program import program
from tests.infra.policy.stacks import STACKS, program_of, stack_file
from tests.infra.recording.run import Life
from tests.infra.support.aws import BASE

TAGS = {"project": "atlas", "stack": "dev", "managed-by": "pulumi"}
PLAIN_HTTP = "plain HTTP for"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # When the engine fails, the SDK abandons the program before its end, and Python warns about it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def life(folder: Path, config: Mapping[str, str], run: Callable[[], None] = program, **more: Any) -> Life:
    return Life(folder, run, config, more_path=map(Path, POLICIES), **more)


@pytest.mark.parametrize("stack", [stack for stack in STACKS if stack not in ("base", "full")])
def test_stack_passes_and_comes_up(stack: str, tmp_path: Path) -> None:
    """The stack files as they are; tests/infra/test_aws_stack.py does it with the variants."""
    made = life(tmp_path, stack_file(stack), program_of(stack), stack=stack)
    assert made.preview(policy_packs=POLICIES).errors == []
    done = made.up(policy_packs=POLICIES)
    assert done.errors == []
    assert all(PLAIN_HTTP in line for line in done.policies)
    assert done.policies != [] or stack == "bootstrap"
    again = made.up(policy_packs=POLICIES)
    assert again.steps == {}
    assert again.policies == done.policies


def test_breach_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    made = life(tmp_path, {**BASE, "apiAccessCidrs": '["0.0.0.0/0"]'})
    refused = made.preview(policy_packs=POLICIES)
    assert refused.failed
    (line,) = [line for line in refused.policies if line.startswith("mandatory")]
    assert line.startswith("mandatory api-endpoint-restricted: ")
    assert line.endswith(
        "atlas-dev-eksCluster: the Kubernetes API is open to 0.0.0.0/0: "
        "name the networks in atlas:apiAccessCidrs, or set [] for none"
    )
    assert made.world.existing() == {}


def test_value_that_only_up_knows_is_refused_before_its_resource_is_made(tmp_path: Path) -> None:
    def declare() -> None:
        address = aws.ec2.Eip("address", domain="vpc", tags=TAGS)
        group = aws.ec2.SecurityGroup("group", description="a group", tags=TAGS)
        aws.vpc.SecurityGroupIngressRule(
            "way",
            security_group_id=group.id,
            cidr_ipv4=address.id.apply(lambda _: "0.0.0.0/0"),
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            tags=TAGS,
        )

    made = life(tmp_path, BASE, declare)
    foreseen = made.preview(policy_packs=POLICIES)
    assert (foreseen.errors, foreseen.policies) == ([], [])
    refused = made.up(policy_packs=POLICIES)
    assert refused.failed
    (line,) = refused.policies
    assert "way: port 443 is open to 0.0.0.0/0" in line
    assert made.world.of(":SecurityGroupIngressRule") == []


def test_stack_as_a_whole_is_looked_at(tmp_path: Path) -> None:
    def declare() -> None:
        aws.s3.Bucket("open", tags=TAGS)
        aws.ec2.Vpc("wide", cidr_block="10.0.0.0/16", tags=TAGS)

    refused = life(tmp_path, BASE, declare).preview(policy_packs=POLICIES)
    assert refused.failed
    assert sorted(line.split("\n")[-1] for line in refused.policies) == [
        "open: the bucket has no encryption: use PrivateBucket, which declares all of it",
        "open: the bucket has no policy that refuses plain HTTP: use PrivateBucket, which declares all of it",
        "open: the bucket has no public access block: use PrivateBucket, which declares all of it",
        "open: the bucket has no versioning: use PrivateBucket, which declares all of it",
        "wide: its default security group has AWS's rules: adopt it with an empty DefaultSecurityGroup",
        "wide: nobody could tell later who connected to whom: declare FlowLogs for it",
    ]


def test_nodes_need_a_template_of_the_stack_and_a_preview_says_so(tmp_path: Path) -> None:
    def declare() -> None:
        template = aws.ec2.LaunchTemplate(
            "node",
            metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1},
            block_device_mappings=[{"device_name": "/dev/xvda", "ebs": {"encrypted": "true"}}],
            tag_specifications=[{"resource_type": kind, "tags": TAGS} for kind in ("instance", "volume")],
            tags=TAGS,
        )
        started_from: Mapping[str, Any] = {
            "ours": {"id": template.id, "version": template.latest_version.apply(str)},
            "eks": None,
            "elsewhere": {"id": "lt-0123456789abcdef0", "version": "1"},
        }
        for name, launch_template in started_from.items():
            aws.eks.NodeGroup(
                name,
                cluster_name="c",
                node_role_arn="arn:aws:iam::123456789012:role/atlas/dev/node",
                subnet_ids=["subnet-1"],
                scaling_config={"min_size": 1, "desired_size": 1, "max_size": 1},
                launch_template=launch_template,
                tags=TAGS,
            )

    made = life(tmp_path, BASE, declare)
    refused = made.preview(policy_packs=POLICIES)
    assert refused.failed
    assert sorted(line.split("\n")[-1] for line in refused.policies) == [
        "eks: launchTemplate must name, by id or name, a template that the stack declares",
        "elsewhere: launchTemplate must name, by id or name, a template that the stack declares",
    ]


def test_secret_in_an_output_is_refused(tmp_path: Path) -> None:
    def declare() -> None:
        pulumi.export("where", {"url": "https://example.com"})
        pulumi.export("key", pulumi.Output.secret("AKIAIOSFODNN7EXAMPLE"))

    refused = life(tmp_path, BASE, declare).preview(policy_packs=POLICIES)
    (line,) = refused.policies
    assert line.startswith("mandatory no-secret-in-outputs: ")
    assert "the output key contains an AWS access key" in line


def test_secret_setting_in_plain_text_is_refused(tmp_path: Path) -> None:
    def declare() -> None:
        token = pulumi.Config("atlas").require("mlflowToken")
        aws.ec2.LaunchTemplate("told", description=f"uses {token}", tags=TAGS)

    refused = life(tmp_path, {**BASE, "mlflowToken": "secret:the-token"}, declare).preview(policy_packs=POLICIES)
    assert any("description contains a secret setting's value" in line for line in refused.policies)
    assert not any("the-token" in line for line in [*refused.policies, *refused.errors])
