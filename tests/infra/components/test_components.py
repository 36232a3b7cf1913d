"""Each component alone, on Pulumi's mocks: the resources that it declares for its arguments.

The cluster, which is made by a component of another package, is in test_cluster.py, the workload in test_manifests.py.
"""

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks

from infra.components.alerting import Alerting, AlertingArgs
from infra.components.cluster import _creator_is_no_admin
from infra.components.feature_table import FeatureTable, FeatureTableArgs
from infra.components.flow_logs import FlowLogs, FlowLogsArgs
from infra.components.host import Host, HostArgs, host_role
from infra.components.image import context_hash
from infra.components.monitoring_access import MonitoringAccess, MonitoringAccessArgs
from infra.components.network import Network, NetworkArgs, layout
from infra.components.pod_identity import PodIdentity, PodIdentityArgs, service_policy
from infra.components.private_bucket import PrivateBucket, PrivateBucketArgs
from infra.components.registry import Registry, RegistryArgs
from infra.components.status_alarms import StatusAlarms, StatusAlarmsArgs

THREAD = ThreadPoolExecutor(1, initializer=lambda: asyncio.set_event_loop(asyncio.new_event_loop()))
"""For programs on mocks, each with a context of its own: what an engine that failed in another test left in the SDK
(tasks, a root resource) would be waited for in the main thread, and blamed on these tests."""
TAGS = {"project": "atlas", "stack": "test"}


class World(mocks.Mocks):
    """Records the declared resources; a resource's id is its name, and its ARN contains the name."""

    def __init__(self) -> None:
        self.declared: list[tuple[str, str, dict[str, Any]]] = []

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.declared.append((args.name, args.typ, args.inputs))
        outputs = {**args.inputs, "arn": f"arn:aws:x:us-east-1:123456789012:{args.name}"}
        outputs.setdefault("name", args.name)
        if args.typ == "aws:s3/bucket:Bucket":
            outputs["bucket"] = args.name
        return "vol-0123456789abcdef0" if args.typ == "aws:ebs/volume:Volume" else f"{args.name}-id", outputs

    def call(self, _: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        return {"insecureValue": "ami-1", "name": "x", "value": "ami-1", "accountId": "123456789012"}, []

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Inputs by name, of one type."""
        return {name: inputs for name, token, inputs in self.declared if token.endswith(f":{kind}")}


@pytest.fixture
def declared() -> Callable[[Callable[[], Any]], World]:
    """Run a function that declares resources, and return the declared resources."""

    def run(program: Callable[[], Any]) -> World:
        world = World()

        def declare() -> None:
            mocks.set_mocks(world, project="atlas", stack="test")
            # It waits until all declared resources are registered.
            pulumi.runtime.test(program)()

        THREAD.submit(Context().run, declare).result()
        return world

    return run


def network_args(**changed: Any) -> NetworkArgs:
    base = NetworkArgs("us-east-1", ("a", "b"), "10.20.0.0/16", "single", False, "cluster", TAGS)
    return replace(base, **changed)


def test_layout_gives_hosts_a_subnet_that_nothing_else_can_fill() -> None:
    plan = layout("10.20.0.0/16")
    assert plan.private == ("10.20.32.0/20", "10.20.48.0/20")
    assert (plan.hosts, plan.prometheus, plan.grafana) == ("10.20.64.0/20", "10.20.64.10", "10.20.64.11")
    assert layout("10.0.0.0/20").hosts == "10.0.4.0/24"


@pytest.mark.parametrize(("nat", "gateways"), [("single", 1), ("per-az", 2)])
def test_network_has_as_many_nat_gateways_as_told(declared: Any, nat: str, gateways: int) -> None:
    world = declared(lambda: Network("n", network_args(nat=nat)))
    assert len(world.of("NatGateway")) == len(world.of("Eip")) == gateways
    private = {name: inputs["natGatewayId"] for name, inputs in world.of("Route").items() if "private" in name}
    assert len(set(private.values())) == gateways
    assert len(world.of("Subnet")) == 5


@pytest.mark.parametrize("public", [False, True])
def test_hosts_have_a_way_in_only_when_told(declared: Any, public: bool) -> None:
    route = declared(lambda: Network("n", network_args(public_hosts=public))).of("Route")["n-hosts-route"]
    assert ("gatewayId" in route) is public
    assert ("natGatewayId" in route) is not public


def test_network_names_subnets_for_load_balancers_and_closes_the_default_group(declared: Any) -> None:
    world = declared(lambda: Network("n", network_args()))
    tagged = {name: inputs["tags"] for name, inputs in world.of("Subnet").items()}
    assert tagged["n-public-a"]["kubernetes.io/role/elb"] == "1"
    assert tagged["n-private-b"]["kubernetes.io/role/internal-elb"] == "1"
    assert not any(key.startswith("kubernetes.io/role") for key in tagged["n-hosts"])
    (group,) = world.of("DefaultSecurityGroup").values()
    assert "ingress" not in group
    assert "egress" not in group
    endpoints = {one["serviceName"]: one for one in world.of("VpcEndpoint").values()}
    assert set(endpoints) == {"com.amazonaws.us-east-1.s3", "com.amazonaws.us-east-1.dynamodb"}
    for endpoint in endpoints.values():
        assert (endpoint["vpcEndpointType"], len(endpoint["routeTableIds"])) == ("Gateway", 4)


@pytest.mark.parametrize("disposable", [False, True])
def test_bucket_is_closed_versioned_encrypted(declared: Any, disposable: bool) -> None:
    world = declared(lambda: PrivateBucket("b", PrivateBucketArgs(disposable, TAGS)))
    assert world.of("Bucket")["b-bucket"]["forceDestroy"] is disposable
    closed = world.of("BucketPublicAccessBlock")["b-closed"]
    assert [
        closed[key] for key in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    ] == [True] * 4
    assert world.of("BucketVersioning")["b-versioning"]["versioningConfiguration"] == {"status": "Enabled"}
    policy = json.loads(world.of("BucketPolicy")["b-policy"]["policy"])
    assert policy["Statement"][0]["Resource"] == [
        "arn:aws:x:us-east-1:123456789012:b-bucket",
        "arn:aws:x:us-east-1:123456789012:b-bucket/*",
    ]


def test_registry_never_moves_a_tag_and_keeps_the_last_images(declared: Any) -> None:
    world = declared(lambda: Registry("r", RegistryArgs("atlas-test/app", True, 7, TAGS)))
    repository = world.of("Repository")["r-repository"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    rule = json.loads(world.of("LifecyclePolicy")["r-lifecycle"]["policy"])["rules"][0]
    assert rule["selection"]["countNumber"] == 7


def context(folder: Path) -> str:
    return context_hash(folder, folder / "models/bundle", "{}")


def test_image_tag_follows_everything_that_goes_in_and_nothing_else(tmp_path: Path) -> None:
    for path in ("Dockerfile", ".dockerignore", "requirements/service.txt", "ml/bundle.py", "service/app.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "models/bundle").mkdir(parents=True)
    (tmp_path / "models/bundle/bundle.json").write_text("{}")
    before = context(tmp_path)
    (tmp_path / "service/__pycache__").mkdir()
    (tmp_path / "service/__pycache__/app.pyc").write_bytes(b"x")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "models/bundle/evaluated").mkdir()
    (tmp_path / "models/bundle/evaluated/bundle.json").write_text("{}")
    assert context(tmp_path) == before
    shutil.copytree(tmp_path / "models/bundle", tmp_path / "elsewhere")
    assert context_hash(tmp_path, tmp_path / "elsewhere", "{}") == before
    assert context_hash(tmp_path, tmp_path / "models/bundle", '{"BASE_IMAGE": "x"}') != before
    for path in ("Dockerfile", "service/app.py", "models/bundle/bundle.json"):
        text = (tmp_path / path).read_text()
        (tmp_path / path).write_text(text + " ")
        assert context(tmp_path) != before, path
        (tmp_path / path).write_text(text)
    (tmp_path / "ml/new.py").write_text("")
    assert context(tmp_path) != before


def test_only_the_cluster_itself_is_transformed() -> None:
    def transformed(kind: str) -> Any:
        args = pulumi.ResourceTransformArgs(
            custom=True, type_=kind, name="x", props={"accessConfig": {"authenticationMode": "API"}},
            opts=pulumi.ResourceOptions(),
        )  # fmt: skip
        return _creator_is_no_admin(args)

    assert transformed("aws:iam/role:Role") is None
    assert transformed("aws:eks/cluster:Cluster").props["accessConfig"] == {
        "authenticationMode": "API",
        "bootstrapClusterCreatorAdminPermissions": False,
    }


def test_host_is_hardened_and_reads_only_its_own_configuration(declared: Any) -> None:
    def program() -> None:
        bucket = PrivateBucket("config", PrivateBucketArgs(True, TAGS))
        args = HostArgs(
            role="prometheus", region="us-east-1", zone="us-east-1a", vpc_id="vpc", subnet_id="hosts",
            address="10.20.64.10", public=False, instance_type="t3.medium", disk_gb=20, ways_out=[], bucket=bucket,
            files={"rules.yml": "groups: []"}, disposable=False, tags=TAGS, data_disk_gb=30, cluster="c",
        )  # fmt: skip
        Host("prometheus", args, host_role("prometheus", TAGS))

    world = declared(program)
    instance = world.of("Instance")["prometheus-instance"]
    assert instance["metadataOptions"]["httpTokens"] == "required"
    assert instance["metadataOptions"]["httpPutResponseHopLimit"] == 1
    assert instance["rootBlockDevice"]["encrypted"] is True
    assert "keyName" not in instance
    assert instance["userDataReplaceOnChange"] is True
    assert "vol0123456789abcdef0" in instance["userData"].replace("-", "")
    assert world.of("Volume")["prometheus-data"]["encrypted"] is True
    statements = json.loads(world.of("RolePolicy")["prometheus-policy"]["policy"])["Statement"]
    assert [s["Resource"] for s in statements if s["Action"] == "s3:GetObject"] == [
        "arn:aws:x:us-east-1:123456789012:config-bucket/prometheus/*"
    ]
    assert world.of("BucketObjectv2")["prometheus-rules.yml"]["key"] == "prometheus/rules.yml"
    ports = {rule["toPort"] for rule in world.of("SecurityGroupEgressRule").values()}
    assert ports == {80, 443}
    assert world.of("SecurityGroupIngressRule") == {}


def test_monitoring_ways_have_both_ends_and_none_is_ssh(declared: Any) -> None:
    args = MonitoringAccessArgs("sg-p", "sg-g", "sg-c", ["198.51.100.0/24"], materializer=True, tags=TAGS)
    world = declared(lambda: MonitoringAccess("m", args))
    ways = {
        (rule["securityGroupId"], rule["referencedSecurityGroupId"], rule["toPort"])
        for rule in world.of("SecurityGroupEgressRule").values()
    }
    back = {
        (rule["referencedSecurityGroupId"], rule["securityGroupId"], rule["toPort"])
        for rule in world.of("SecurityGroupIngressRule").values()
        if "referencedSecurityGroupId" in rule
    }
    assert ways == back
    assert {("sg-p", "sg-c", 10250), ("sg-p", "sg-c", 9101)} <= ways
    # EC2 refuses descriptions with other characters (constraints of CreateSecurityGroup).
    allowed = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{0,255}")
    described = [*world.of("SecurityGroupIngressRule").values(), *world.of("SecurityGroupEgressRule").values()]
    assert [rule["description"] for rule in described if not allowed.fullmatch(rule["description"])] == []
    operators = {
        (rule["cidrIpv4"], rule["securityGroupId"], rule["toPort"])
        for rule in world.of("SecurityGroupIngressRule").values()
        if "cidrIpv4" in rule
    }
    assert operators == {("198.51.100.0/24", "sg-p", 9090), ("198.51.100.0/24", "sg-g", 3000)}


@pytest.mark.parametrize(
    ("email", "budget", "budgets"), [(None, 250, 0), ("a@b.example", None, 0), ("a@b.example", 99, 1)]
)
def test_budget_needs_a_limit_and_somebody_to_tell(
    declared: Any, email: str | None, budget: int | None, budgets: int
) -> None:
    world = declared(lambda: Alerting("a", AlertingArgs("test", email, budget, TAGS)))
    assert world.of("Topic")["a-topic"]["kmsMasterKeyId"].endswith(":a-alerts")
    assert len(world.of("TopicSubscription")) == (email is not None)
    assert len(world.of("Budget")) == budgets
    for made in world.of("Budget").values():
        assert made["limitAmount"] == "99"
        assert made["costFilters"] == [{"name": "TagKeyValue", "values": ["user:stack$test"]}]
        assert [(n["notificationType"], n["threshold"]) for n in made["notifications"]] == [
            ("ACTUAL", 80),
            ("FORECASTED", 100),
        ]


def test_identity_reads_one_prefix_and_writes_another(declared: Any) -> None:
    def program() -> None:
        bucket = PrivateBucket("data", PrivateBucketArgs(True, TAGS))
        policy = service_policy(bucket.arn, None)
        PodIdentity("Service", "s", PodIdentityArgs("c", "ns", "app", policy, bucket, TAGS))

    world = declared(program)
    statements = json.loads(world.of("RolePolicy")["s-policy"]["policy"])["Statement"]
    assert {(s["Action"], s["Resource"].rsplit("bucket", 1)[-1]) for s in statements} == {
        ("s3:GetObject", "/service/*"),
        ("s3:PutObject", "/predictions/*"),
    }
    association = world.of("PodIdentityAssociation")["s-association"]
    assert (association["namespace"], association["serviceAccount"]) == ("ns", "app")


def test_identity_looks_features_up_in_one_table_and_writes_nothing_there(declared: Any) -> None:
    def program() -> None:
        bucket = PrivateBucket("data", PrivateBucketArgs(True, TAGS))
        table = FeatureTable("t", FeatureTableArgs("us-east-1", True, TAGS))
        policy = service_policy(bucket.arn, table.arn)
        PodIdentity("Service", "s", PodIdentityArgs("c", "ns", "app", policy, bucket, TAGS))

    statements = json.loads(declared(program).of("RolePolicy")["s-policy"]["policy"])["Statement"]
    assert [(s["Action"], s["Resource"]) for s in statements if "dynamodb" in str(s["Action"])] == [
        (["dynamodb:BatchGetItem", "dynamodb:GetItem"], "arn:aws:x:us-east-1:123456789012:t")
    ]


@pytest.mark.parametrize("disposable", [False, True])
def test_table_has_the_stores_keys_expires_rows_and_can_be_restored(declared: Any, disposable: bool) -> None:
    world = declared(lambda: FeatureTable("t", FeatureTableArgs("us-east-1", disposable, TAGS)))
    table = world.of("Table")["t"]
    assert (table["hashKey"], table["rangeKey"]) == ("entity", "bucket")
    assert table["attributes"] == [{"name": "entity", "type": "S"}, {"name": "bucket", "type": "N"}]
    assert table["ttl"] == {"attributeName": "expires", "enabled": True}
    assert table["billingMode"] == "PAY_PER_REQUEST"
    assert table["pointInTimeRecovery"] == {"enabled": True}
    assert table["deletionProtectionEnabled"] is not disposable
    assert table["tags"] == {**TAGS, "component": "features"}


def test_topics_key_lets_alarms_of_this_account_publish_and_iam_decide_the_rest(declared: Any) -> None:
    """AWS's own key for SNS, alias/aws/sns, refuses CloudWatch: alarms would be lost."""
    world = declared(lambda: Alerting("a", AlertingArgs("test", None, None, TAGS)))
    by_iam, alarms = json.loads(world.of("Key")["a-alerts"]["policy"])["Statement"]
    assert by_iam["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}
    assert alarms["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert alarms["Action"] == ["kms:Decrypt", "kms:GenerateDataKey*"]
    assert alarms["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_flow_logs_expire_and_their_role_writes_only_them(declared: Any) -> None:
    world = declared(lambda: FlowLogs("f", FlowLogsArgs("vpc-1", "/atlas/test/flow-logs", 30, TAGS)))
    (group,) = world.of("LogGroup").values()
    assert (group["name"], group["retentionInDays"]) == ("/atlas/test/flow-logs", 30)
    (flows,) = world.of("FlowLog").values()
    assert (flows["vpcId"], flows["trafficType"]) == ("vpc-1", "ALL")
    assert "vpc-flow-logs.amazonaws.com" in world.of("Role")["f-role"]["assumeRolePolicy"]
    write, look = json.loads(world.of("RolePolicy")["f-policy"]["policy"])["Statement"]
    streams = f"{flows['logDestination']}:log-stream:*"
    assert (write["Action"], write["Resource"]) == (["logs:CreateLogStream", "logs:PutLogEvents"], streams)
    assert (look["Action"], look["Resource"]) == ("logs:DescribeLogStreams", [flows["logDestination"], streams])


def test_each_host_has_an_alarm_that_notifies_when_it_fails_stops_and_recovers(declared: Any) -> None:
    hosts = {"prometheus": "i-1", "grafana": "i-2"}
    world = declared(lambda: StatusAlarms("a", StatusAlarmsArgs("test", hosts, "arn:topic", TAGS)))
    alarms = world.of("MetricAlarm")
    assert {name: alarm["dimensions"]["InstanceId"] for name, alarm in alarms.items()} == {
        "a-prometheus-status": "i-1",
        "a-grafana-status": "i-2",
    }
    for alarm in alarms.values():
        assert (alarm["namespace"], alarm["metricName"]) == ("AWS/EC2", "StatusCheckFailed")
        for state in ("alarmActions", "insufficientDataActions", "okActions"):
            assert alarm[state] == ["arn:topic"]
