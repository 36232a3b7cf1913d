"""The recording providers themselves: they refuse what is wrong, and know what exists, in which order and why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_docker_build as docker_build
import pulumi_eks as eks
import pulumi_kubernetes as kubernetes
import pulumi_random as random
import pytest

from tests.infra.recording.run import Life
from tests.infra.recording.schema import problems

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]
"""A program whose engine failed is dropped half-way by the SDK, which Python tells of."""
ADMIN = "arn:aws:iam::123456789012:role/admin"
POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"


def not_creator(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    if args.type_ != "aws:eks/cluster:Cluster":
        return None
    given: Any = args.props["accessConfig"]
    access = {**given, "bootstrapClusterCreatorAdminPermissions": False}
    return pulumi.ResourceTransformResult(props={**args.props, "accessConfig": access}, opts=args.opts)


def cluster_program() -> None:
    """The program of which the real component's resources were recorded."""
    template = aws.ec2.LaunchTemplate("node-template", metadata_options={"http_tokens": "required"})
    role = aws.iam.Role("node-role", assume_role_policy="{}")
    cluster = eks.Cluster(
        "cluster",
        name="flask-app-cluster",
        version="1.34",
        vpc_id="vpc-1",
        public_subnet_ids=["subnet-c", "subnet-d"],
        private_subnet_ids=["subnet-a", "subnet-b"],
        endpoint_private_access=True,
        endpoint_public_access=True,
        public_access_cidrs=["203.0.113.0/24"],
        authentication_mode=eks.AuthenticationMode.API,
        access_entries={
            "admin": eks.AccessEntryArgs(
                principal_arn=ADMIN,
                access_policies={
                    "admin": eks.AccessPolicyAssociationArgs(
                        access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"), policy_arn=POLICY
                    )
                },
            ),
            "prometheus": eks.AccessEntryArgs(
                principal_arn="arn:aws:iam::123456789012:role/team-prometheus", kubernetes_groups=["prometheus"]
            ),
        },
        create_oidc_provider=False,
        encryption_config_key_arn="arn:aws:kms:us-east-1:aws:key/k",
        enabled_cluster_log_types=["api", "audit", "authenticator"],
        upgrade_policy={"support_type": "STANDARD"},
        skip_default_node_group=True,
        skip_default_security_groups=True,
        kube_proxy_addon_options=eks.KubeProxyAddonOptionsArgs(version="v1.34.0-eksbuild.2"),
        vpc_cni_options=eks.VpcCniOptionsArgs(addon_version="v1.20.0-eksbuild.1", enable_network_policy=True),
        tags={"project": "atlas"},
        opts=pulumi.ResourceOptions(transforms=[not_creator]),
    )
    nodes = eks.ManagedNodeGroup(
        "nodes",
        cluster=cluster,
        node_group_name="flask-app-nodes",
        node_role_arn=role.arn,
        subnet_ids=["subnet-a", "subnet-b"],
        instance_types=["t3.small"],
        scaling_config={"min_size": 1, "desired_size": 1, "max_size": 1},
        ignore_scaling_changes=True,
        launch_template={"id": template.id, "version": template.latest_version.apply(str)},
    )
    eks.Addon(
        "coredns",
        cluster=cluster,
        addon_name="coredns",
        addon_version="v1.12.0-eksbuild.1",
        opts=pulumi.ResourceOptions(parent=cluster, depends_on=[nodes]),
    )


# name, type, parent, dependencies (without what the program itself gave): from the record of the real component.
REAL = {
    ("cluster", "eks:index:Cluster", "atlas-dev", ()),
    ("cluster-eksRole", "eks:index:ServiceRole", "cluster", ()),
    ("cluster-eksRole-role", "aws:iam/role:Role", "cluster-eksRole", ()),
    (
        "cluster-eksRole-4b490823",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "cluster-eksRole",
        ("cluster-eksRole-role",),
    ),
    (
        "cluster-eksCluster",
        "aws:eks/cluster:Cluster",
        "cluster",
        ("cluster-eksRole-4b490823", "cluster-eksRole-role"),
    ),
    ("cluster-kube-proxy", "aws:eks/addon:Addon", "cluster", ("cluster-eksCluster",)),
    ("cluster-admin", "aws:eks/accessEntry:AccessEntry", "cluster", ("cluster-eksCluster",)),
    ("cluster-prometheus", "aws:eks/accessEntry:AccessEntry", "cluster", ("cluster-eksCluster",)),
    ("cluster-eks-k8s", "pulumi:providers:kubernetes", "cluster", ("cluster-eksCluster",)),
    (
        "cluster-admin-admin",
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        "cluster-admin",
        ("cluster-admin", "cluster-eksCluster"),
    ),
    ("cluster-vpc-cni", "eks:index:VpcCniAddon", "cluster", ("cluster-admin", "cluster-prometheus")),
    ("cluster-vpc-cni", "aws:eks/addon:Addon", "cluster-vpc-cni", ("cluster-eksCluster",)),
    ("nodes", "eks:index:ManagedNodeGroup", "atlas-dev", ("node-role", "node-template")),
    ("nodes", "aws:eks/nodeGroup:NodeGroup", "nodes", ("cluster-eksCluster", "node-role", "node-template")),
    ("coredns", "eks:index:Addon", "cluster", ("nodes",)),
    ("coredns", "aws:eks/addon:Addon", "coredns", ("cluster-eksCluster",)),
}
REAL_INPUTS: dict[str, dict[str, Any]] = {
    "cluster-eksCluster": {
        "accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False},
        "bootstrapSelfManagedAddons": True,
        "enabledClusterLogTypes": ["api", "audit", "authenticator"],
        "encryptionConfig": {"provider": {"keyArn": "arn:aws:kms:us-east-1:aws:key/k"}, "resources": ["secrets"]},
        "name": "flask-app-cluster",
        "tags": {"Name": "cluster-eksCluster", "project": "atlas"},
        "upgradePolicy": {"supportType": "STANDARD"},
        "version": "1.34",
        "vpcConfig": {
            "endpointPrivateAccess": True,
            "endpointPublicAccess": True,
            "publicAccessCidrs": ["203.0.113.0/24"],
            "subnetIds": ["subnet-c", "subnet-d", "subnet-a", "subnet-b"],
        },
    },
    "cluster-vpc-cni": {
        "addonName": "vpc-cni",
        "addonVersion": "v1.20.0-eksbuild.1",
        "clusterName": "flask-app-cluster",
        "configurationValues": '{"enableNetworkPolicy":"true","env":{"AWS_VPC_ENI_MTU":"9001",'
        '"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG":"false","AWS_VPC_K8S_CNI_EXTERNALSNAT":"false",'
        '"AWS_VPC_K8S_CNI_LOGLEVEL":"DEBUG","AWS_VPC_K8S_CNI_LOG_FILE":"/host/var/log/aws-routed-eni/ipamd.log",'
        '"AWS_VPC_K8S_CNI_VETHPREFIX":"eni","AWS_VPC_K8S_PLUGIN_LOG_FILE":"/var/log/aws-routed-eni/plugin.log",'
        '"AWS_VPC_K8S_PLUGIN_LOG_LEVEL":"DEBUG","ENABLE_POD_ENI":"false","WARM_ENI_TARGET":"1"},'
        '"init":{"env":{"DISABLE_TCP_EARLY_DEMUX":"false"}}}',
        "preserve": True,
        "resolveConflictsOnCreate": "OVERWRITE",
        "resolveConflictsOnUpdate": "OVERWRITE",
        "tags": {"project": "atlas"},
    },
    "coredns": {
        "addonName": "coredns",
        "addonVersion": "v1.12.0-eksbuild.1",
        "clusterName": "flask-app-cluster",
    },
    "cluster-admin": {"clusterName": "flask-app-cluster", "principalArn": ADMIN},
    "cluster-admin-admin": {
        "accessScope": {"type": "cluster"},
        "clusterName": "flask-app-cluster",
        "policyArn": POLICY,
        "principalArn": ADMIN,
    },
}


def small_program() -> None:
    """A bit of everything: what each package records."""
    config = pulumi.Config()
    vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16", tags={"Name": config.get("tag") or "one"})
    subnet = aws.ec2.Subnet("subnet", vpc_id=vpc.id, cidr_block=config.get("cidr") or "10.0.0.0/24")
    aws.ec2.Instance(
        "host", ami="ami-1", instance_type="t3.small", subnet_id=subnet.id, private_ip="10.0.0.10",
        opts=pulumi.ResourceOptions(delete_before_replace=True),
    )  # fmt: skip
    bucket = aws.s3.Bucket("bucket", force_destroy=True)
    aws.s3.BucketVersioning("versioning", bucket=bucket.id, versioning_configuration={"status": "Enabled"})
    password = random.RandomPassword("password", length=20)
    docker_build.Image("image", tags=["registry.example.com/a:1"], push=True, context={"location": "."})
    provider = kubernetes.Provider("k8s", kubeconfig="{}")
    here = pulumi.ResourceOptions(provider=provider)
    settings = kubernetes.core.v1.ConfigMap("settings", data={"LEVEL": config.get("level") or "info"}, opts=here)
    kubernetes.core.v1.Secret("secret", metadata={"name": "secret"}, string_data={"KEY": password.result}, opts=here)
    service = kubernetes.core.v1.Service(
        "service",
        metadata={"name": "service"},
        spec={"type": "LoadBalancer", "ports": [{"port": 5000}]},
        opts=pulumi.ResourceOptions(provider=provider, depends_on=[settings]),
    )
    pulumi.export("hostname", service.status.load_balancer.ingress[0].hostname)


@pytest.fixture
def live(tmp_path: Path) -> Callable[..., Life]:
    def build(program: Callable[[], None], **options: Any) -> Life:
        return Life(tmp_path / "life", program, {}, **options)

    return build


@pytest.mark.parametrize(
    ("token", "inputs", "path", "reason"),
    [
        ("aws:s3/bucket:Bucket", {"forceDestory": True}, "forceDestory", "unknown property; there are"),
        (
            "aws:ec2/instance:Instance",
            {"metadataOptions": {"httpTokenz": "x"}},
            "metadataOptions.httpTokenz",
            "unknown",
        ),
        ("aws:ec2/vpc:Vpc", {"cidrBlock": 10}, "cidrBlock", "must be a string, got 10"),
        ("aws:ec2/vpc:Vpc", {"enableDnsSupport": "maybe"}, "enableDnsSupport", "must be true or false"),
        ("aws:ec2/subnet:Subnet", {"cidrBlock": "10.0.0.0/24"}, "vpcId", "is required"),
        ("aws:ec2/instance:Instance", {"vpcSecurityGroupIds": "sg-1"}, "vpcSecurityGroupIds", "must be a list"),
        ("aws:ec2/vpc:Vpc", {"tags": {"a": 1}}, "tags.a", "must be a string"),
        ("aws:ec2/vpcs:Vpc", {}, "", "is no resource of the installed SDK"),
        ("kubernetes:core/v1:Service", {"spec": {"ports": [{"prot": 1}]}}, "spec.ports[0].prot", "unknown"),
        ("kubernetes:core/v1:Service", {"spec": {"ports": [{"port": "a"}]}}, "spec.ports[0].port", "must be a number"),
        ("docker-build:index:Image", {"push": True, "platforms": ["linux/z80"]}, "platforms[0]", "must be one of"),
        ("eks:index:Cluster", {"vpcCniOptions": {"version": "v1"}}, "vpcCniOptions.version", "unknown"),
        ("pulumi:providers:aws", {"regoin": "us-east-1"}, "regoin", "unknown"),
        ("pulumi:providers:aws", {"allowedAccountIds": "[1]"}, "allowedAccountIds[0]", "must be a string"),
    ],
)
def test_input_that_the_sdk_does_not_know_is_refused(
    token: str, inputs: dict[str, Any], path: str, reason: str
) -> None:
    found = problems(token, inputs)
    assert any(where == path and reason in told for where, told in found), found


def test_unknown_values_and_whole_inputs_pass() -> None:
    unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    assert problems("aws:ec2/subnet:Subnet", {"vpcId": unknown, "tags": unknown, "__defaults": []}) == []
    assert problems("kubernetes:core/v1:Service", {"spec": {"ports": [{"port": 1, "targetPort": "http"}]}}) == []


def test_misspelt_nested_key_stops_the_preview_by_name(live: Callable[..., Life]) -> None:
    misspelt: Any = {"stauts": "Enabled"}

    def program() -> None:
        aws.s3.BucketVersioning("b", bucket="b", versioning_configuration=misspelt)

    refused = live(program).preview()
    assert refused.failed
    assert any(
        "versioningConfiguration.stauts: unknown property; there are mfaDelete, status" in e for e in refused.errors
    )


def test_misspelt_input_of_a_component_is_refused(live: Callable[..., Life]) -> None:
    misspelt: Any = {"supportTpye": "STANDARD"}

    def program() -> None:
        eks.Cluster("c", vpc_id="vpc-1", upgrade_policy=misspelt)

    refused = live(program).preview()
    assert any("upgradePolicy.supportTpye: unknown property" in error for error in refused.errors), refused.errors


def test_component_input_of_unknown_consequence_is_refused(live: Callable[..., Life]) -> None:
    def program() -> None:
        eks.Cluster("c", vpc_id="vpc-1", fargate=True)

    refused = live(program).preview()
    assert any("fargate: not known what the real component makes of it" in error for error in refused.errors)


def test_public_cidrs_of_a_private_endpoint_are_refused_as_by_the_real_component(live: Callable[..., Life]) -> None:
    def program() -> None:
        eks.Cluster("c", vpc_id="vpc-1", endpoint_public_access=False, public_access_cidrs=["203.0.113.0/24"])

    refused = live(program).preview()
    assert any("can only be set when `endpointPublicAccess` is true" in error for error in refused.errors)


def test_life_of_a_small_stack(live: Callable[..., Life]) -> None:
    made = live(small_program)
    foreseen = made.preview()
    assert foreseen.errors == []
    assert made.world.existing() == {}
    done = made.up()
    assert done.errors == []
    assert done.steps == foreseen.steps
    assert set(done.steps.values()) == {"create"}
    assert made.outputs()["hostname"].endswith(".elb.us-east-1.amazonaws.com")
    assert made.preview().steps == {}
    assert made.refresh().steps == {}
    assert made.drift() == []

    password = made.world.of(":RandomPassword")[0].outputs["result"]
    assert made.world.of("core/v1:Secret")[0].inputs["stringData"] == {"KEY": password}
    assert password not in made.state_text()

    made.configure({"tag": "two", "level": "debug"})
    changed = made.up()
    assert changed.errors == []
    assert changed.paths["aws:ec2/vpc:Vpc::vpc"] == ["tags.Name"]
    # The real Kubernetes provider replaces a ConfigMap whose data changes; Pulumi named it, so the new one comes first.
    assert changed.steps == {
        "aws:ec2/vpc:Vpc::vpc": "update",
        "kubernetes:core/v1:ConfigMap::settings": "replace",
    }
    assert [call.name for call in made.world.deleted()] == ["settings"]

    made.configure({"cidr": "10.0.1.0/24"})
    replaced = made.up()
    assert replaced.errors == []
    assert replaced.keys["aws:ec2/subnet:Subnet::subnet"] == ["cidrBlock"]
    # The instance goes before its successor takes its address; the subnet goes last.
    order = [f"{call.operation} {call.name}" for call in made.world.calls("create", "delete")][-4:]
    assert set(order[:2]) == {"delete host", "create subnet"}
    assert order[2:] == ["create host", "delete subnet"]
    assert made.drift() == []

    assert made.destroy().errors == []
    assert made.world.existing() == {}
    assert made.world.order_problems() == []


def test_providers_on_path_record_the_same(live: Callable[..., Life], tmp_path: Path) -> None:
    made = live(small_program, on_path=True)
    done = made.up()
    assert done.errors == []
    attached = Life(tmp_path / "attached", small_program, {})
    assert attached.up().steps == done.steps
    assert sorted(call.token for call in made.world.existing().values()) == sorted(
        call.token for call in attached.world.existing().values()
    )
    assert len(made.world.existing()) == 10


def test_cluster_registers_what_the_real_component_registers(live: Callable[..., Life]) -> None:
    made = live(cluster_program)
    assert made.preview().errors == []
    assert made.up().errors == []

    def last(urn: str) -> str:
        return urn.rsplit("::", 1)[-1]

    state = made.state()
    found = {
        (
            last(resource["urn"]),
            resource["type"],
            last(resource["parent"]),
            tuple(sorted(map(last, resource.get("dependencies", [])))),
        )
        for resource in state
        if resource.get("parent") and last(resource["urn"]) not in ("node-role", "node-template")
    }
    assert found == REAL
    inputs = {last(r["urn"]): r["inputs"] for r in state if "inputs" in r}
    for name, expected in REAL_INPUTS.items():
        given = {key: value for key, value in inputs[name].items() if key not in ("__defaults", "roleArn")}
        assert given == expected
    ignored = {last(r["urn"]): r["ignoreChanges"] for r in state if r.get("ignoreChanges")}
    assert ignored == {
        "cluster-eksCluster": ["accessConfig.bootstrapClusterCreatorAdminPermissions", "bootstrapSelfManagedAddons"],
        "nodes": ["scalingConfig.desiredSize"],
    }
    assert [call.token for call in made.world.calls("invoke")] == ["aws:index/getPartition:getPartition"] * 2
    assert made.preview().steps == {}


def test_failure_at_each_resource_is_told_and_the_next_run_goes_on(live: Callable[..., Life]) -> None:
    made = live(small_program)
    made.world.fail_each_once("create", "RequestLimitExceeded: Request limit exceeded.")
    for _ in range(12):
        done = made.up()
        if not done.failed:
            break
        assert any("RequestLimitExceeded" in error for error in done.errors)
        assert made.drift() == []
    assert not done.failed
    failed = {call.name for call in made.world.calls("create") if call.error}
    assert failed == {call.name for call in made.world.created()}
    made.world.fail("delete", 2, "DependencyViolation: it has a dependent object")
    refused = made.destroy()
    assert any("DependencyViolation" in error for error in refused.errors)
    assert made.drift() == []
    assert made.destroy().errors == []
    assert made.world.existing() == {}


def test_half_made_thing_is_kept_and_repaired(live: Callable[..., Life]) -> None:
    def program() -> None:
        aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16")

    made = live(program)
    made.world.fail("create", 1, "timeout while waiting for state to become 'available'", half=True)
    done = made.up()
    assert any("timeout while waiting" in error for error in done.errors), done.errors
    assert made.drift() == []
    assert len(made.world.existing()) == 1
    again = made.up()
    assert again.errors == []
    assert again.steps == {"aws:ec2/vpc:Vpc::vpc": "update"}


def test_interrupted_run_leaves_nothing_unnoted(live: Callable[..., Life]) -> None:
    made = live(small_program, checkpoints=True)
    made.world.slow(1)

    assert made.interrupted_up(lambda: bool(made.world.calls("create"))).failed
    assert made.drift() == []
    made.world.slow(0)
    assert made.up().errors == []
    assert made.drift() == []


def test_taken_name_is_refused(live: Callable[..., Life]) -> None:
    def program() -> None:
        first = aws.iam.Role("one", name="same", assume_role_policy="{}")
        aws.iam.Role("two", name="same", assume_role_policy="{}", opts=pulumi.ResourceOptions(depends_on=[first]))

    refused = live(program).up()
    assert any("EntityAlreadyExists" in error for error in refused.errors), refused.errors


def test_name_that_becomes_too_long_is_refused(live: Callable[..., Life]) -> None:
    def program() -> None:
        aws.iam.Role("r" * 60, assume_role_policy="{}")

    refused = live(program).preview()
    assert any("would have 68 characters; 64 are allowed" in error for error in refused.errors), refused.errors


def test_thing_that_another_deletes_is_missed(live: Callable[..., Life]) -> None:
    def program() -> None:
        bucket = aws.s3.Bucket("b", bucket="b")
        for name in ("kept", *(["other"] if pulumi.Config().get("both") != "no" else [])):
            aws.s3.BucketVersioning(name, bucket=bucket.id, versioning_configuration={"status": "Enabled"})

    made = live(program)
    assert made.up().errors == []
    made.configure({"both": "no"})
    assert made.up().errors == []
    (line,) = made.drift()
    assert line.endswith("BucketVersioning::kept is noted, and gone")


def test_missing_dependency_shows_in_the_order(live: Callable[..., Life]) -> None:
    def program() -> None:
        role = aws.iam.Role("role", name="role", assume_role_policy="{}")
        late = pulumi.ResourceOptions(depends_on=[role])
        # By a name that the program wrote twice, the engine sees no edge.
        aws.iam.RolePolicyAttachment("early", role="late", policy_arn=POLICY, opts=late)
        early = aws.s3.Bucket("wait", opts=late)
        aws.iam.Role("late", name="late", assume_role_policy="{}", opts=pulumi.ResourceOptions(depends_on=[early]))

    made = live(program)
    assert made.up().errors == []
    assert made.world.order_problems() == [
        "create of early (aws:iam/rolePolicyAttachment:RolePolicyAttachment): there is no aws:iam/role:Role late"
    ]


def test_refresh_sees_what_was_removed_by_hand(live: Callable[..., Life]) -> None:
    made = live(small_program)
    assert made.up().errors == []
    made.world.vanish(made.world.of("s3/bucketVersioning:BucketVersioning")[0])
    assert made.refresh().steps == {"aws:s3/bucketVersioning:BucketVersioning::versioning": "delete"}
    again = made.up()
    assert again.errors == []
    assert again.steps == {"aws:s3/bucketVersioning:BucketVersioning::versioning": "create"}
