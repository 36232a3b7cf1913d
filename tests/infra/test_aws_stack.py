"""The AWS program on the real engine: its life in each variant, what each setting changes, how it ends, how it fails.

AWS, EKS, Kubernetes and the image build are recorded (tests/infra/recording): inputs are checked against the SDKs' own
types, and what real providers refuse or replace is refused and replaced here.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pydantic.alias_generators import to_camel

from infra.components import feature_table
from infra.engine.workspace import POLICIES
from infra.program import program
from infra.settings import AwsSettings, load_settings
from tests.bundles import make_bundle
from tests.infra.recording.run import Life, Result, edges
from tests.infra.support.aws import API_KEYS, BASE, DIGEST, FULL, up

DEPLOYER, ANN = "arn:aws:iam::123456789012:role/deploy", "arn:aws:iam::123456789012:user/ann"
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/0f4c"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # A program whose engine failed is dropped half-way by the SDK, which Python tells of.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def life(
    folder: Path,
    settings: Mapping[str, str] | None = None,
    run: Callable[[], None] = program,
    **more: Any,
) -> Life:
    return Life(folder, run, {**BASE, **(settings or {})}, **more)


def short(key: str) -> str:
    """`Instance prometheus-instance` of aws:ec2/instance:Instance::prometheus-instance."""
    kind, name = key.split("::", 1)
    return f"{kind.rsplit(':', 1)[-1]} {name}"


def touched(result: Result) -> dict[str, str]:
    return {short(key): operation for key, operation in result.steps.items()}


def needs(state: list[dict[str, Any]]) -> dict[str, set[str]]:
    """URN -> all that it waits for when it is made, and that waits for it when it goes, directly or not."""
    direct = edges(state)
    found: dict[str, set[str]] = {}

    def closure(urn: str) -> set[str]:
        if urn not in found:
            found[urn] = direct[urn].union(*(closure(other) for other in direct[urn]))
        return found[urn]

    return {urn: closure(urn) for urn in direct}


ROUTES = ("Route ", "RouteTableAssociation ")
WAITS: Sequence[tuple[Sequence[str], Sequence[str]]] = (
    # All of these wait for all of those, though most don't name them.
    (("NatGateway ",), ("InternetGateway ",)),
    (
        ("Cluster atlas-dev-eksCluster",),
        ("LogGroup atlas-dev-logs", "Key atlas-dev-secrets", "RolePolicyAttachment atlas-dev-eksRole-"),
    ),
    # Without its policy the role of the flow logs loses them, and nobody is told.
    (("FlowLog ",), ("RolePolicy atlas-dev-flow-logs-policy", "LogGroup atlas-dev-flow-logs")),
    # Without its policies or a way out a node never joins, and can't take its pods' addresses back.
    (("NodeGroup ",), ("RolePolicyAttachment atlas-dev-node-", *ROUTES, "Cluster atlas-dev-eksCluster")),
    (("Addon atlas-dev-coredns", "Addon atlas-dev-eks-pod-identity-agent", "Addon atlas-dev-metrics"), ("NodeGroup ",)),
    # Kubernetes can be reached and its load balancer taken down; a pod older than its identity has none.
    (
        ("Namespace ", "Deployment ", "Service ", "ConfigMap ", "NetworkPolicy ", "ClusterRoleBinding "),
        ("NodeGroup ", "AccessEntry ", "AccessPolicyAssociation ", "PodIdentityAssociation ", *ROUTES),
    ),
    (
        ("Deployment ",),
        ("Addon atlas-dev-eks-pod-identity-agent", "Addon atlas-dev-vpc-cni"),
    ),
    # A host fetches software and configuration at its first start.
    (("Instance prometheus-",), ("RolePolicy prometheus-policy", *ROUTES)),
    (("Instance grafana-",), ("RolePolicy grafana-policy", *ROUTES)),
    # S3 refuses two changes of access settings at once, and rules on versions before there are versions.
    (("BucketPolicy atlas-dev-data",), ("BucketPublicAccessBlock atlas-dev-data",)),
    (("BucketLifecycleConfiguration atlas-dev-data",), ("BucketVersioning atlas-dev-data",)),
)


def assert_edges(made: Life) -> None:
    """Whatever needs something waits for it by a dependency, and not by luck."""
    found = {urn: closure for urn, closure in needs(made.state()).items() if "pulumi:pulumi:" not in urn}

    def named(urn: str) -> str:
        return short("::".join(urn.split("::")[2:]))

    for later, earlier in WAITS:
        for prefix in later:
            waiting = [urn for urn in found if named(urn).startswith(prefix) and "atlas:" not in urn.split("$")[-1]]
            assert waiting, f"there is no {prefix}"
            for other in earlier:
                wanted = {urn for urn in found if named(urn).startswith(other)}
                assert wanted, f"there is no {other}"
                for urn in waiting:
                    assert wanted <= found[urn], (
                        f"{named(urn)} doesn't wait for {sorted(map(named, wanted - found[urn]))}"
                    )


def assert_order_of_deletes(made: Life, since: int = 0) -> None:
    """Service before nodes before cluster before network; all of Kubernetes while it can be reached and left."""
    calls = made.world.deleted()[since:]

    def gone(*parts: str) -> float:
        return max(call.ended for call in calls if any(part in f"{call.token} {call.name}" for part in parts))

    def begun(*parts: str) -> float:
        return min(call.begun for call in calls if any(part in f"{call.token} {call.name}" for part in parts))

    routes = ("ec2/route:", "ec2/routeTableAssociation:", "ec2/natGateway:")
    assert gone("kubernetes:") < begun(
        "eks/nodeGroup:", "eks/access", "eks/podIdentityAssociation:", "Addon atlas-dev-vpc"
    )
    assert gone("eks/nodeGroup:") < begun("eks/cluster:")
    # A node that loses a policy or its way out can't take its pods' addresses back.
    assert gone("eks/nodeGroup:") < begun("RolePolicyAttachment atlas-dev-node-")
    assert gone("eks/nodeGroup:", "ec2/instance:") < begun(*routes)
    assert gone("ec2/natGateway:") < begun("ec2/internetGateway:")
    assert gone("eks/cluster:") < begun("ec2/subnet:", "ec2/vpc:", "LogGroup atlas-dev-logs", "Key atlas-dev-secrets")
    assert gone("ec2/flowLog:") < begun("ec2/vpc:", "LogGroup atlas-dev-flow-logs")
    assert gone("MetricAlarm atlas-dev-prometheus") < begun("ec2/instance:Instance prometheus")
    assert gone("ec2/volumeAttachment:") < begun("ec2/instance:Instance prometheus")


def assert_gone(made: Life) -> None:
    before = len(made.world.deleted())
    gone = made.destroy()
    assert gone.errors == []
    assert made.state() == []
    assert made.world.existing() == {}
    assert made.world.order_problems() == []
    assert_order_of_deletes(made, before)


VARIANTS: Mapping[str, Mapping[str, str]] = {
    "the least": {},
    "NAT per zone": {"nat": "per-az", "nodeMax": "3", "nodeDesired": "2", "replicas": "2"},
    "hosts open to operators": {
        "operatorCidrs": '["198.51.100.0/24","203.0.113.7/32"]',
        "alertEmail": "oncall@example.com",
    },
    "API and hosts private, TLS, scaled": {
        "apiAccessCidrs": "[]",
        "certificateArn": CERTIFICATE,
        "hostname": "flights.example.com",
        "nodeType": "t3.medium",
        "nodeMax": "2",
        "maxReplicas": "4",
        "accountId": "123456789012",
        "kubernetesVersion": "1.35",
    },
    "no feature store": {"featureStore": "false"},
    "the registry's model": {
        "modelUri": "models:/flights-late@champion",
        "mlflowTrackingUri": "http://mlflow.example.com:5000",
        "mlflowToken": "secret:the-token",
        "downloadMirror": "https://mirror.example.com/releases",
    },
    "everything": FULL,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_passes_the_policies_comes_up_stays_and_goes_in_order(variant: str, tmp_path: Path) -> None:
    made = life(tmp_path, VARIANTS[variant], more_path=map(Path, POLICIES))
    foreseen = made.preview(policy_packs=POLICIES)
    assert foreseen.errors == []
    assert made.world.existing() == {}
    done = made.up(policy_packs=POLICIES)
    assert done.errors == []
    # During `up` all values are known, so rules see values that a preview doesn't know.
    for told in (foreseen.policies, done.policies):
        assert len(told) == (0 if "certificateArn" in VARIANTS[variant] else 1)
        assert all("plain HTTP for" in line for line in told)
    assert_edges(made)
    assert done.steps == foreseen.steps
    assert set(done.steps.values()) == {"create"}
    assert made.preview().steps == {}
    assert made.refresh().steps == {}
    assert made.drift() == []
    assert "the-token" not in made.state_text()
    assert_gone(made)


def building(tmp_path: Path) -> Life:
    """A stack that builds its image from the bundle in tmp_path / "repository"."""

    def run() -> None:
        from infra.environments import aws

        settings = load_settings(pulumi.runtime.config.CONFIG.get())
        assert isinstance(settings, AwsSettings)
        for name, value in aws.deploy(settings, tmp_path / "repository").items():
            pulumi.export(name, value)

    made = life(tmp_path / "life", run=run)
    made.unset("image")
    return made


def test_image_is_built_once_known_by_digest_and_kept(tmp_path: Path) -> None:
    make_bundle(tmp_path / "repository" / "models" / "bundle")

    made = building(tmp_path)
    foreseen = made.preview()
    assert foreseen.errors == []
    assert made.up().errors == []
    image = made.outputs()["image"]
    assert "@sha256:" in image
    # This bundle has no feature views, so that the service has nothing to look up.
    assert made.world.of("dynamodb/table:Table") == []
    assert "FEATURE_STORE" not in environment(made)
    (deployment,) = made.world.of(":Deployment")
    assert deployment.inputs["spec"]["template"]["spec"]["containers"][0]["image"] == image
    (build,) = made.world.of("docker-build:index:Image")
    assert (build.inputs["target"], "DATA_PARAMS" in build.inputs["buildArgs"]) == ("slim", False)
    assert made.preview().steps == {}, "a fresh registry login is no change"

    (tmp_path / "repository" / "Dockerfile").write_text("FROM scratch\n")
    changed = made.up()
    assert changed.errors == []
    assert touched(changed) == {"Image atlas-dev-build": "update", "Deployment flask-app-deployment": "update"}
    assert made.outputs()["image"] != image

    # To deploy a given digest instead forgets the image, and deletes no manifest that may be running.
    made.configure({"image": DIGEST})
    assert touched(made.up())["Image atlas-dev-build"] == "delete"
    assert made.world.of(":Image")
    assert made.destroy().errors == []
    # Images go with their repository, which is emptied by force.
    (repository,) = (call for call in made.world.deleted() if call.token.endswith(":Repository"))
    assert repository.inputs["forceDelete"] is True
    assert [call.token for call in made.world.existing().values()] == ["docker-build:index:Image"]


def environment(made: Life) -> dict[str, str]:
    """The settings that the pods get."""
    (settings,) = made.world.of("core/v1:ConfigMap")
    found: dict[str, str] = settings.inputs["data"]
    return found


def pod(made: Life, name: str) -> dict[str, Any]:
    """The pod of the Deployment with this name."""
    (found,) = (call for call in made.world.of(":Deployment") if call.inputs["metadata"]["name"] == name)
    spec: dict[str, Any] = found.inputs["spec"]["template"]["spec"]
    return spec


def features(made: Life, role: str = "service") -> list[dict[str, Any]]:
    """What the role may do with tables."""
    (policy,) = (call for call in made.world.of(":RolePolicy") if call.name == f"atlas-dev-{role}-policy")
    statements: list[dict[str, Any]] = json.loads(policy.inputs["policy"])["Statement"]
    return [statement for statement in statements if "dynamodb" in str(statement["Action"])]


def test_bundle_with_views_gets_a_table_which_its_pods_know_and_may_read_and_which_outlives_a_rollback(
    tmp_path: Path,
) -> None:
    bundle = make_bundle(tmp_path / "repository" / "models" / "bundle")
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"]["views.json"] = "0" * 64
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    params = tmp_path / "repository" / "params.yaml"
    params.write_text("data: {source: flights}\ngate: {metric: log_loss}\n")

    made = building(tmp_path)
    assert made.up().errors == []
    (table,) = made.world.of("dynamodb/table:Table")
    assert environment(made)["FEATURE_STORE"] == f"dynamodb://{table.id}?region=us-east-1"
    assert made.outputs()["featureStore"] == environment(made)["FEATURE_STORE"]
    assert [(statement["Action"], statement["Resource"]) for statement in features(made)] == [
        (["dynamodb:BatchGetItem", "dynamodb:GetItem"], table.outputs["arn"])
    ]
    # A single image serves, and writes the table.
    assert [(statement["Action"], statement["Resource"]) for statement in features(made, "materializer")] == [
        (
            ["dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:GetItem", "dynamodb:UpdateItem"],
            table.outputs["arn"],
        )
    ]
    service, writer = (pod(made, name) for name in ("flask-app", "flask-app-materializer"))
    assert service["containers"][0]["image"] == writer["containers"][0]["image"] == made.outputs()["image"]
    assert environment(made)["FEATURE_STORE"] in writer["containers"][0]["command"]
    associations = {call.inputs["serviceAccount"] for call in made.world.of(":PodIdentityAssociation")}
    assert {service["serviceAccountName"], writer["serviceAccountName"]} == associations
    (build,) = made.world.of("docker-build:index:Image")
    assert build.inputs["target"] == "features"
    assert json.loads(build.inputs["buildArgs"]["DATA_PARAMS"]) == {"source": "flights"}

    # Only the section that the materialiser reads counts.
    params.write_text("data: {source: flights}\ngate: {metric: rmse}\n")
    assert made.preview().steps == {}
    params.write_text("data: {source: flights, uri: other}\n")
    assert touched(made.preview())["Image atlas-dev-build"] == "update"

    # An image that exists already says nothing about its bundle, and the folder's may be another.
    shutil.rmtree(bundle)
    made.configure({"image": DIGEST})
    assert not [step for step in touched(made.up()) if step.startswith(("Table ", "ConfigMap "))]


def test_table_that_must_be_replaced_rolls_the_pods_and_goes_last(dev: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment(dev)["FEATURE_STORE"]
    monkeypatch.setattr(feature_table, "BUCKET", "day")
    done = dev.up()
    assert done.errors == []
    found = touched(done)
    assert found == {
        **ROLLOUT, **WRITER, "Table atlas-dev-features": "replace", "RolePolicy atlas-dev-service-policy": "update",
        "RolePolicy atlas-dev-materializer-policy": "update",
    }  # fmt: skip
    assert_answering(found)
    assert environment(dev)["FEATURE_STORE"] != before
    (deleted,) = (call for call in dev.world.deleted() if call.token.endswith(":Table"))
    updated = [call for call in dev.world.calls("update") if call.token.endswith(":Deployment")]
    assert updated[-1].ended < deleted.begun
    monkeypatch.undo()
    assert dev.up().errors == []


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A stack that is up; whoever changes its settings changes them back."""
    made = life(tmp_path_factory.mktemp("dev"), STARTED)
    assert made.up().errors == []
    return made


STARTED = {
    "mlflowTrackingUri": "https://mlflow.example.com",
    "mlflowToken": "secret:one",
    "apiKeysFile": str(API_KEYS),
    "nodeMax": "2",
    "kubernetesVersion": "1.35",
    "alertEmail": "oncall@example.com",
}
HOSTS = {
    "Instance prometheus-instance": "replace",
    "Instance grafana-instance": "replace",
    "VolumeAttachment prometheus-data": "replace",
    # Deleted before the host, so that nobody gets a mail about the old host.
    "MetricAlarm atlas-dev-prometheus-status": "replace",
    "MetricAlarm atlas-dev-grafana-status": "replace",
}
ROLLOUT = {"ConfigMap flask-app-settings": "replace", "Deployment flask-app-deployment": "update"}
WRITER = {"Deployment flask-app-materializer-deployment": "update"}
CHANGES: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "log level": ({"logLevel": "debug"}, ROLLOUT),
    "workers": ({"workers": "2"}, ROLLOUT),
    "model": ({"modelUri": "models:/flights-late@champion"}, ROLLOUT),
    "another port of the MLflow server": (
        {"mlflowTrackingUri": "https://mlflow.example.com:5000"},
        {**ROLLOUT, "NetworkPolicy flask-app-traffic": "update"},
    ),
    "token": (
        {"mlflowToken": "secret:two"},
        {"Secret capstone-secret": "replace", "Deployment flask-app-deployment": "update"},
    ),
    "API keys": (
        {"apiKeysFile": str(API_KEYS.with_name("other_keys.json"))},
        {"Secret flask-app-api-keys": "update"},
    ),
    "name of the token's secret": (
        {"secretName": "mlflow"},
        {"Secret mlflow": "create", "Deployment flask-app-deployment": "update", "Secret capstone-secret": "delete"},
    ),
    "no feature store": (
        {"featureStore": "false"},
        {
            **ROLLOUT,
            "FeatureTable atlas-dev-features": "delete",
            "Table atlas-dev-features": "delete",
            "RolePolicy atlas-dev-service-policy": "update",
            "MaterializerIdentity atlas-dev-materializer": "delete",
            "Role atlas-dev-materializer-role": "delete",
            "RolePolicy atlas-dev-materializer-policy": "delete",
            "PodIdentityAssociation atlas-dev-materializer-association": "delete",
            "ServiceAccount flask-app-materializer-account": "delete",
            "NetworkPolicy flask-app-materializer-traffic": "delete",
            "Deployment flask-app-materializer-deployment": "delete",
            "SecurityGroupEgressRule monitoring-materializer-out": "delete",
            "SecurityGroupIngressRule monitoring-materializer-in": "delete",
            "BucketObjectv2 prometheus-prometheus.yml": "update",
        },
    ),
    "speed of the replay": ({"replaySpeed": "60"}, WRITER),
    "memory of the materialiser": ({"materializerMemoryMib": "1024"}, WRITER),
    "memory": ({"podMemoryMib": "600"}, {"Deployment flask-app-deployment": "update"}),
    "time of a rollout": ({"rolloutSeconds": "60"}, {"Deployment flask-app-deployment": "update"}),
    "image": ({"image": DIGEST[:-1] + "b"}, {"Deployment flask-app-deployment": "update", **WRITER}),
    "replicas": (
        {"replicas": "2"},
        {"Deployment flask-app-deployment": "update", "PodDisruptionBudget flask-app-disruptions": "create"},
    ),
    "autoscaling": (
        {"maxReplicas": "3"},
        {"Deployment flask-app-deployment": "update", "HorizontalPodAutoscaler flask-app-autoscaler": "create"},
    ),
    "callers": ({"serviceCidrs": '["198.51.100.0/24"]'}, {"Service flask-app-service": "update"}),
    "TLS": (
        {"certificateArn": CERTIFICATE, "hostname": "flights.example.com"},
        {"Service flask-app-service": "update"},
    ),
    "scrape interval": ({"scrapeInterval": "30s"}, {"BucketObjectv2 prometheus-prometheus.yml": "update"}),
    "retention": ({"retention": "30d"}, {"BucketObjectv2 prometheus-prometheus.yml": "update"}),
    "mirror": ({"downloadMirror": "https://mirror.example.com/releases"}, HOSTS),
    "size of the hosts": (
        {"hostType": "t3.large"},
        {"Instance prometheus-instance": "update", "Instance grafana-instance": "update"},
    ),
    "disk of the hosts": (
        {"hostDiskGb": "30"},
        {"Instance prometheus-instance": "update", "Instance grafana-instance": "update"},
    ),
    "disk of the samples": ({"dataDiskGb": "40"}, {"Volume prometheus-data": "update"}),
    "operators": (
        {"operatorCidrs": '["198.51.100.0/24"]'},
        {
            **HOSTS,
            "Route atlas-dev-hosts-route": "update",
            "SecurityGroupIngressRule monitoring-operator-0-prometheus": "create",
            "SecurityGroupIngressRule monitoring-operator-0-grafana": "create",
        },
    ),
    "who reaches the API": (
        {"apiAccessCidrs": '["198.51.100.0/24"]'},
        {"Cluster atlas-dev-eksCluster": "update"},
    ),
    "private API": ({"apiAccessCidrs": "[]"}, {"Cluster atlas-dev-eksCluster": "update"}),
    "another admin": (
        {"adminPrincipals": f'["{DEPLOYER}","{ANN}"]'},
        {"AccessEntry": "create", "AccessPolicyAssociation": "create"},
    ),
    "most nodes": ({"nodeMax": "3"}, {"NodeGroup atlas-dev-nodes": "update"}),
    "fewest nodes": ({"nodeMin": "2", "nodeDesired": "2"}, {"NodeGroup atlas-dev-nodes": "update"}),
    "name of the node group": (
        {"nodeGroupName": "others"},
        {"NodeGroup atlas-dev-nodes": "replace", "LaunchTemplate atlas-dev-node": "update"},
    ),
    "nodes at first": ({"nodeDesired": "2"}, {}),
    "type of the nodes": ({"nodeType": "t3.medium"}, {"NodeGroup atlas-dev-nodes": "replace"}),
    "Kubernetes": (
        {"kubernetesVersion": "1.36"},
        {
            "Cluster atlas-dev-eksCluster": "update",
            "Addon atlas-dev-kube-proxy": "update",
            "Addon atlas-dev-coredns": "update",
            "Addon atlas-dev-metrics-server": "update",
        },
    ),
    "NAT per zone": (
        {"nat": "per-az"},
        {
            "Eip atlas-dev-nat-b-eip": "create",
            "NatGateway atlas-dev-nat-b": "create",
            "Route atlas-dev-private-b-route": "update",
        },
    ),
    "images kept": ({"imagesKept": "20"}, {"LifecyclePolicy atlas-dev-lifecycle": "replace"}),
    "logs kept": (
        {"logRetentionDays": "60"},
        {"LogGroup atlas-dev-logs": "update", "LogGroup atlas-dev-flow-logs": "update"},
    ),
    "budget": ({"budgetUsd": "300"}, {"Budget atlas-dev-budget": "update"}),
    "mail": (
        {"alertEmail": "ann@example.com"},
        {"Budget atlas-dev-budget": "update", "TopicSubscription atlas-dev-mail": "replace"},
    ),
    "account": ({"accountId": "123456789012"}, {"aws aws": "update"}),
    "no longer disposable": (
        {"disposable": "false"},
        {
            "Bucket atlas-dev-data-bucket": "update",
            "Table atlas-dev-features": "update",
            "Repository atlas-dev-repository": "update",
            "Secret grafana-admin": "update",
        },
    ),
}


UNSET: Mapping[str, tuple[Sequence[str], Mapping[str, str]]] = {
    # Settings that are removed from a stack that has them all (FULL).
    "token": (
        ("mlflowToken",),
        {"Secret capstone-secret": "delete", "Deployment flask-app-deployment": "update"},
    ),
    "API keys": (
        ("apiKeysFile",),
        {"Secret flask-app-api-keys": "delete", **ROLLOUT},
    ),
    "TLS": (("hostname", "certificateArn"), {"Service flask-app-service": "update"}),
}


RENAMED = frozenset({"appName", "namespace", "serviceName", "clusterName", "region", "zones", "vpcCidr"})
"""Settings that say what the pods, the Service or their cluster are called, or where they are: other objects."""
NOT_DEPLOYED = frozenset({"environment", "permissionsBoundary", "policyExceptions", "bundle", "baseImage"})
"""Settings that no object in the cluster has; a built image's digest shows the last two (`image`)."""
ANSWERING = ("Deployment ", "Service ", "Namespace ")
"""Objects without which no request is answered."""


@pytest.fixture
def changed(dev: Life) -> Iterator[Callable[[Mapping[str, str]], Life]]:
    """The stack with other settings, until the test's end."""
    given: dict[str, str] = {}

    def change(settings: Mapping[str, str]) -> Life:
        given.update(settings)
        dev.configure(settings)
        return dev

    yield change
    before = {**BASE, **STARTED}
    dev.configure({key: before[key] for key in given if key in before})
    dev.unset(*(key for key in given if key not in before))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_setting_touches_just_what_it_should(changed: Callable[[Mapping[str, str]], Life], change: str) -> None:
    settings, expected = CHANGES[change]
    foreseen = changed(settings).preview()
    assert foreseen.errors == []
    found = touched(foreseen)
    if change == "another admin":  # how its entry is called is the program's own affair
        found = {key.split()[0]: operation for key, operation in found.items()}
    assert found == expected
    assert_answering(found)


@pytest.mark.parametrize("change", UNSET)
def test_removed_setting_touches_just_what_it_should(change: str) -> None:
    keys, expected = UNSET[change]
    full = up("full")
    full.unset(*keys)
    try:
        foreseen = full.preview()
    finally:
        full.configure({key: FULL[key] for key in keys})
    assert foreseen.errors == []
    assert touched(foreseen) == expected
    assert_answering(expected)


def assert_answering(changed: Mapping[str, str]) -> None:
    """Requests are answered meanwhile.

    Pulumi deletes a replaced object and all that depends on it first, unless it generates the object's name.
    """
    answering = {
        operation for key, operation in changed.items() if key.startswith(ANSWERING) and "materializer" not in key
    }
    assert not answering & {"replace", "delete"}


def test_every_setting_of_a_stack_is_changed() -> None:
    changed = {name for settings, _ in CHANGES.values() for name in settings}
    assert not changed & (RENAMED | NOT_DEPLOYED)
    assert changed | RENAMED | NOT_DEPLOYED == {to_camel(name) for name in AwsSettings.model_fields}


def test_settings_changed_one_after_the_other_leave_a_whole_stack(tmp_path: Path) -> None:
    """Replaced for real: fixed addresses, names and volumes have to be free before their successors take them."""
    made = life(tmp_path, STARTED)
    assert made.up().errors == []
    steps: tuple[dict[str, str], ...] = (
        {"retention": "30d", "operatorCidrs": '["198.51.100.0/24"]', "nat": "per-az"},
        {"operatorCidrs": "[]", "nat": "single", "hostType": "t3.large"},
        {"mlflowToken": "secret:two", "logLevel": "debug", "imagesKept": "20"},
        {"nodeType": "t3.medium", "replicas": "2", "maxReplicas": "3"},
        {"maxReplicas": "2", "namespace": "other", "appName": "other-app"},
        {"alertEmail": "ann@example.com", "kubernetesVersion": "1.36", "apiAccessCidrs": "[]"},
    )
    for settings in steps:
        made.configure(settings)
        done = made.up()
        assert done.errors == [], settings
        assert made.drift() == [], settings
        assert made.world.order_problems() == [], settings
    assert made.preview().steps == {}
    assert_gone(made)


def test_admins_can_be_named_in_another_order(tmp_path: Path) -> None:
    made = life(tmp_path, {"adminPrincipals": f'["{DEPLOYER}","{ANN}"]'})
    assert made.up().errors == []
    made.configure({"adminPrincipals": f'["{ANN}","{DEPLOYER}"]'})
    done = made.up()
    assert done.errors == []
    assert done.steps == {}


UNTAGGABLE = {
    f"aws:{token}"
    for token in (
        "ec2/route:Route",
        "ec2/routeTableAssociation:RouteTableAssociation",
        "ec2/volumeAttachment:VolumeAttachment",
        "ecr/lifecyclePolicy:LifecyclePolicy",
        "eks/accessPolicyAssociation:AccessPolicyAssociation",
        "iam/rolePolicy:RolePolicy",
        "iam/rolePolicyAttachment:RolePolicyAttachment",
        "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "s3/bucketOwnershipControls:BucketOwnershipControls",
        "s3/bucketPolicy:BucketPolicy",
        "s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "s3/bucketVersioning:BucketVersioning",
        "secretsmanager/secretVersion:SecretVersion",
        "sns/topicSubscription:TopicSubscription",
    )
}
"""Types that AWS knows no tags for."""


def test_everything_that_can_have_tags_has_them(dev: Life) -> None:
    tagged = [call for call in dev.world.existing().values() if call.token.startswith("aws:")]
    for call in tagged:
        if call.token not in UNTAGGABLE:
            assert {"project", "stack", "component", "managed-by"} <= call.inputs.get("tags", {}).keys(), call.urn
    assert {call.token for call in tagged} >= UNTAGGABLE


def test_creator_of_the_cluster_is_no_admin_unless_listed(dev: Life) -> None:
    (cluster,) = dev.world.of("eks/cluster:Cluster")
    assert cluster.inputs["accessConfig"] == {
        "authenticationMode": "API",
        "bootstrapClusterCreatorAdminPermissions": False,
    }


def test_versions_of_add_ons_are_pinned(dev: Life) -> None:
    addons = dev.world.of("eks/addon:Addon")
    assert {call.inputs["addonName"] for call in addons} == {
        "coredns", "eks-pod-identity-agent", "kube-proxy", "metrics-server", "vpc-cni",
    }  # fmt: skip
    assert all(call.inputs["addonVersion"] for call in addons)
    asked = {call.token for call in dev.world.calls("invoke")}
    assert not {token for token in asked if "getAddonVersion" in token}


def test_secret_values_are_nowhere_in_plain(dev: Life) -> None:
    (made,) = dev.world.of(":RandomPassword")
    password = made.outputs["result"]
    assert dev.world.of(":SecretVersion")[0].inputs["secretString"] == password
    assert password not in dev.state_text()
    for call in dev.world.of(":Instance"):
        assert password not in call.inputs["userData"]


def test_protected_stack_is_not_destroyed(tmp_path: Path) -> None:
    made = life(tmp_path, {"disposable": "false"})
    assert made.up().errors == []
    # The preview refuses. Without one, as in the Automation API's destroy, what isn't protected would be gone by then.
    refused = made.preview_destroy()
    assert refused.failed
    told = "\n".join(refused.errors)
    assert "protected" in told
    assert "atlas-dev-data-bucket" in told
    assert made.world.deleted() == []
    # Two runs: the first gives up the protection, the second deletes.
    made.configure({"disposable": "true"})
    assert made.up().errors == []
    assert_gone(made)


def test_thing_removed_by_hand_comes_back(dev: Life) -> None:
    (service,) = dev.world.of("core/v1:Service")
    dev.world.vanish(service)
    assert touched(dev.refresh()) == {"Service flask-app-service": "delete"}
    again = dev.up()
    assert again.errors == []
    assert touched(again) == {"Service flask-app-service": "create"}
    assert dev.drift() == []


@pytest.mark.timeout(1800)
def test_failure_of_every_single_create_and_delete_is_survived(tmp_path: Path) -> None:
    """One stack, in which each resource's first create fails, and then each one's first delete.

    An `up` goes on where nothing depends on what failed, so that few runs are needed; those that stop at the first
    failure follow below. A `destroy` stops: the engine would go on to delete what a failed delete still needs.
    """
    made = life(tmp_path)
    made.world.fail_each_once("create", "ServiceUnavailable: the service is out of order")
    runs, kept = 0, 0
    while (done := made.up(continue_on_error=True)).failed:
        runs += 1
        told = "\n".join(done.errors)
        assert "ServiceUnavailable" in told
        assert made.drift() == []
        assert len(made.world.existing()) >= kept
        kept = len(made.world.existing())
        assert runs < 100, told
    failed = {call.urn for call in made.world.calls("create") if call.error}
    assert failed == {call.urn for call in made.world.existing().values()}
    assert made.preview().steps == {}
    assert made.world.order_problems() == []

    made.world.fail_each_once("delete", "DependencyViolation: resource has a dependent object")
    runs = 0
    while (gone := made.destroy()).failed:
        runs += 1
        assert "DependencyViolation" in "\n".join(gone.errors)
        assert made.drift() == []
        assert runs < 100
    assert made.world.existing() == {}
    assert made.world.order_problems() == []


@pytest.mark.parametrize("which", [1, 12, 40, 75, 90, 105])
def test_stack_that_failed_half_way_can_be_destroyed(which: int, tmp_path: Path) -> None:
    made = life(tmp_path, checkpoints=True)
    made.world.fail("create", which, "VcpuLimitExceeded: you have requested more vCPU capacity than your limit")
    done = made.up()
    assert "VcpuLimitExceeded" in "\n".join(done.errors)
    gone = made.destroy()
    assert gone.errors == []
    assert made.world.existing() == {}
    assert made.world.order_problems() == []


def test_pods_that_never_become_ready_are_told_and_the_next_run_completes(tmp_path: Path) -> None:
    made = life(tmp_path)
    made.world.fail_each_once("create", "0 of 1 pods are ready", tokens=(":Deployment", ":Service"), half=True)
    done = made.up()
    assert "0 of 1 pods are ready" in "\n".join(done.errors)
    assert made.drift() == []
    # The load balancer is made beside the pods, so its own failure may show in the first run or in the second.
    again = [made.up(), made.up()]
    assert again[-1].errors == []
    assert made.drift() == []
    assert made.preview().steps == {}
    assert_gone(made)


def test_interrupted_run_is_taken_up_again(tmp_path: Path) -> None:
    made = life(tmp_path, checkpoints=True)
    made.world.slow(0.3)

    assert made.interrupted_up(lambda: len(made.world.created()) >= 20).failed
    assert made.drift() == []
    made.world.slow(0)
    assert made.up().errors == []
    assert made.drift() == []
    assert made.preview().steps == {}
    assert_gone(made)
