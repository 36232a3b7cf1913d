"""What the program hands to Kubernetes, against the API's published schemas and the Pod Security Standards."""

from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

from infra.components.cluster import ADDONS
from infra.names import APP_LABEL, materializer
from ml.features.materializing import Metrics
from service.__main__ import GRACE
from tests.infra.support.aws import up

pytestmark = pytest.mark.slow

WRITER = materializer("flask-app")
VERSIONS = sorted(ADDONS)
"""All that atlas:kubernetesVersion allows: the oldest and the newest that EKS has in standard support."""


def manifests(variant: str) -> Iterator[dict[str, Any]]:
    for call in up(variant).world.existing().values():
        if call.token.startswith("kubernetes:"):
            yield {key: value for key, value in call.inputs.items() if not key.startswith("__")}


def of_kind(variant: str, kind: str, name: str = "flask-app") -> dict[str, Any]:
    """The object of this kind in the service, or in the materialiser."""
    found = [each for each in manifests(variant) if each["kind"] == kind]
    return next(each for each in found if each["metadata"]["labels"][APP_LABEL] == name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", ["base", "full"])
def test_manifests_fit_the_published_schema(variant: str, version: str) -> None:
    found = list(manifests(variant))
    assert len(found) >= 10
    for manifest in found:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_schema_check_catches_a_misspelt_field() -> None:
    broken = of_kind("base", "Deployment") | {"spec": {"selectr": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("variant", ["base", "full"])
def test_pod_is_restricted_and_bounded(variant: str) -> None:
    """The rules of the Pod Security Standard `restricted`, and limits and probes beside."""
    pod = of_kind(variant, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"] == {"cpu": "250m", "memory": "192Mi"}
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "512Mi"}
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert "@sha256:" in container["image"]
    labels = of_kind(variant, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_materialiser_is_one_restricted_pod_that_only_prometheus_may_ask() -> None:
    service, writer = of_kind("full", "Deployment"), of_kind("full", "Deployment", WRITER)
    assert (writer["spec"]["replicas"], writer["spec"]["strategy"]) == (1, {"type": "Recreate"})
    pods = [each["spec"]["template"]["spec"] for each in (service, writer)]
    for name in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
        assert pods[0][name] == pods[1][name]
    [own], [other] = (pod["containers"] for pod in pods)
    assert own["image"] == other["image"]
    assert own["securityContext"] == other["securityContext"]
    assert other["resources"]["requests"] == {"cpu": "50m", "memory": "256Mi"}
    assert other["resources"]["limits"] == {"cpu": "1", "memory": "768Mi"}
    assert pods[1]["serviceAccountName"] == WRITER
    # The Service and the disruption budget select by another label.
    assert writer["spec"]["selector"]["matchLabels"] == {APP_LABEL: WRITER}
    assert of_kind("full", "Service")["spec"]["selector"] == {APP_LABEL: "flask-app"}
    policy = of_kind("full", "NetworkPolicy", WRITER)["spec"]
    assert policy["podSelector"]["matchLabels"] == {APP_LABEL: WRITER}
    [rule] = policy["ingress"]
    assert rule["from"] == [{"ipBlock": {"cidr": "10.20.64.10/32"}}]
    [port] = other["ports"]
    assert rule["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]
    assert str(port["containerPort"]) in other["command"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 80, 443}


def test_materialiser_is_restarted_when_it_hangs_and_not_when_its_first_step_is_long() -> None:
    [found] = of_kind("base", "Deployment", WRITER)["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe"):
        assert found[probe]["httpGet"] == {"path": "/health/live", "port": "metrics"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "metrics"}
    metrics = Metrics(lambda: 0)
    assert (metrics.answer("/health/live")[0], metrics.answer("/health/ready")[0]) == (200, 503)


def container() -> dict[str, Any]:
    (only,) = of_kind("base", "Deployment")["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def seconds(probe: dict[str, Any]) -> int:
    """How long the probe must fail until something is done about it."""
    return int(probe["periodSeconds"]) * int(probe["failureThreshold"])


@pytest.mark.parametrize("variant", ["base", "full"])
def test_rollout_takes_no_pod_away_before_another_answers_in_its_place(variant: str) -> None:
    spec = of_kind(variant, "Deployment")["spec"]
    # With a single pod, anything but 0 would let a rollout begin with none. Then there must be room for one more.
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    # A pod that dies right after its first answer doesn't count.
    assert spec["minReadySeconds"] >= 5
    # A pod may use all of its time to start before the rollout is given up, also when a node must be added first.
    start = seconds(spec["template"]["spec"]["containers"][0]["startupProbe"])
    assert 2 * start <= spec["progressDeadlineSeconds"] <= 600
    # `kubectl rollout undo` has something to go back to.
    assert spec["revisionHistoryLimit"] >= 1


def test_pod_has_time_to_load_its_model_before_it_is_judged() -> None:
    probe = container()["startupProbe"]
    # Readiness, so that the other two count only when the model is loaded; which takes seconds, from a registry more.
    assert probe["httpGet"] == {"path": "/health/ready", "port": "http"}
    assert 90 <= seconds(probe) <= 300
    # A rollout goes on within seconds of the first answer.
    assert probe["periodSeconds"] <= 5


def test_pod_that_is_not_ready_gets_no_requests_within_seconds() -> None:
    probe = container()["readinessProbe"]
    assert probe["httpGet"] == {"path": "/health/ready", "port": "http"}
    assert seconds(probe) <= 10
    # A single slow answer is no reason to take a pod away from its callers.
    assert probe["failureThreshold"] >= 2
    assert probe["timeoutSeconds"] >= 2


def test_pod_is_restarted_only_when_its_process_hangs() -> None:
    readiness, probe = container()["readinessProbe"], container()["livenessProbe"]
    # Liveness and not readiness: a restart loads the same model again, and takes away the only pod for longer.
    assert probe["httpGet"] == {"path": "/health/live", "port": "http"}
    assert probe["timeoutSeconds"] >= 2
    # First it gets no more requests; a pod that was merely busy recovers by that, before it is restarted.
    assert 2 * seconds(readiness) <= seconds(probe) <= 60


def test_probes_and_callers_reach_the_port_that_the_container_listens_at() -> None:
    assert container()["ports"] == [{"name": "http", "containerPort": 5000, "protocol": "TCP"}]
    (port,) = of_kind("base", "Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (5000, "http")


def test_pod_answers_until_the_load_balancer_has_noticed_and_then_has_time_to_finish() -> None:
    pod = of_kind("base", "Deployment")["spec"]["template"]["spec"]
    pause = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Endpoints and the load balancer need some seconds to notice; each pod of a rollout waits so long.
    assert 10 <= pause <= 30
    # The pause counts too. After both the pod is killed, with the requests it still has. A node that is drained waits
    # as long for a pod that hangs.
    assert pause + GRACE < pod["terminationGracePeriodSeconds"] <= 120


def test_autoscaled_deployment_leaves_its_size_alone() -> None:
    assert "replicas" not in of_kind("full", "Deployment")["spec"]
    assert of_kind("full", "HorizontalPodAutoscaler")["spec"]["minReplicas"] == 2
    assert of_kind("base", "Deployment")["spec"]["replicas"] == 1
    assert "HorizontalPodAutoscaler" not in [found["kind"] for found in manifests("base")]


def test_disruption_budget_is_only_there_when_it_leaves_room() -> None:
    assert "PodDisruptionBudget" not in [found["kind"] for found in manifests("base")]
    assert of_kind("full", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_everything_is_denied_but_what_is_named() -> None:
    policies = {
        found["metadata"]["name"]: found["spec"] for found in manifests("full") if found["kind"] == "NetworkPolicy"
    }
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_to = policies["flask-app"]
    sources = [peer["ipBlock"]["cidr"] for rule in open_to["ingress"] for peer in rule["from"]]
    # Both private subnets, where nodes are, and Prometheus: a load balancer's packets come from nodes.
    assert sources == ["10.20.32.0/20", "10.20.48.0/20", "10.20.64.10/32"]
    ports = {port["port"] for rule in open_to["egress"] for port in rule["ports"]}
    assert ports == {53, 80, 443, 5000}  # DNS, Pod Identity, HTTPS, and the MLflow server's own
    assert [rule["to"] for rule in open_to["egress"] if rule["ports"] == [{"port": 80, "protocol": "TCP"}]] == [
        [{"ipBlock": {"cidr": "169.254.170.23/32"}}]
    ]


def test_prometheus_may_look_and_nothing_else() -> None:
    rules = [rule for found in manifests("full") if found["kind"] in ("Role", "ClusterRole") for rule in found["rules"]]
    allowed = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    look = {"get", "list", "watch"}
    assert allowed == {("pods", v) for v in look} | {("nodes", v) for v in look} | {("nodes/metrics", "get")}


def test_load_balancer_is_named_tagged_and_speaks_tls_when_told() -> None:
    plain, secure = (of_kind(variant, "Service") for variant in ("base", "full"))
    prefix = "service.beta.kubernetes.io/aws-load-balancer"
    assert plain["spec"]["type"] == "LoadBalancer"
    assert plain["spec"]["loadBalancerSourceRanges"] == ["0.0.0.0/0"]
    assert plain["metadata"]["annotations"][f"{prefix}-type"] == "nlb"
    assert "project=atlas" in plain["metadata"]["annotations"][f"{prefix}-additional-resource-tags"]
    assert f"{prefix}-ssl-cert" not in plain["metadata"]["annotations"]
    assert secure["metadata"]["annotations"][f"{prefix}-ssl-cert"].startswith("arn:aws:acm:")
    assert secure["metadata"]["annotations"][f"{prefix}-ssl-ports"] == "5000"
