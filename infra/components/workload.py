"""The service in the cluster: pods behind a load balancer, under restricted Pod Security, closed but for need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_kubernetes as kubernetes

from infra.names import APP_LABEL, HTTP, PROJECT, SERVICE_PORT, SERVICE_READY

USER = 10001
"""Of the image; any would do, but for root."""
GRACE_SECONDS = 60
"""preStop's pause, the workers' 30 s to finish their requests (service/__main__.py), and some."""
DRAIN_SECONDS = 10
"""A terminating pod goes on answering for so long: endpoints and the load balancer need some seconds to notice."""
CPU_REQUEST = "250m"
"""Some hundred requests a second: one takes 2.2 ms of CPU."""
MEMORY_REQUEST = 3 / 8
"""Of the limit: 192 MiB of the default's 512. Measured with kubelet in a restricted pod: 85 MiB with one worker, 131
with two, alike under load. scikit-learn, for bundles that don't compile, adds some 150 MiB a worker."""
ROLLOUT_SECONDS = 300
"""Until a rollout has failed: a pod is ready within seconds, a node that must be added takes minutes."""
DELETE_TIMEOUT = "20m"
"""A load balancer with its network interfaces takes minutes to go, and the network can't go before it."""


@dataclass(frozen=True, slots=True)
class WorkloadArgs:
    """What the workload needs to know."""

    app: str
    namespace: str
    service_name: str
    service_account: str
    secret_name: str
    image: pulumi.Input[str]
    """By digest."""
    replicas: int
    max_replicas: int | None
    """More than `replicas`: a HorizontalPodAutoscaler decides."""
    workers: int
    """Processes in a pod."""
    memory_mib: int
    """The most memory that a pod may take, in MiB."""
    settings: Mapping[str, str]
    """Environment of the service (service/settings.py); no secrets."""
    mlflow_tracking_uri: str | None
    mlflow_token: pulumi.Input[str] | None
    callers: Sequence[str]
    """CIDRs that may reach the load balancer."""
    certificate_arn: str | None
    node_cidrs: Sequence[str]
    """Where packets from the load balancer, and kubelet's probes, come from."""
    prometheus_cidr: str
    prometheus_group: str
    """The Kubernetes group that Prometheus's role maps to."""
    tags: Mapping[str, str]
    """For the load balancer, which Kubernetes makes."""


class Workload(pulumi.ComponentResource):
    """Namespace and all in it, and Prometheus's permissions.

    Outputs:
        hostname: the load balancer's name (or address).
    """

    hostname: pulumi.Output[str]

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:kubernetes:Workload", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)
        match = {APP_LABEL: args.app}
        labels = {**match, "app.kubernetes.io/part-of": PROJECT, "app.kubernetes.io/managed-by": "pulumi"}

        namespace = kubernetes.core.v1.Namespace(
            f"{name}-namespace",
            metadata={
                "name": args.namespace,
                "labels": {
                    **labels,
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/enforce-version": "latest",
                    "pod-security.kubernetes.io/warn": "restricted",
                },
            },
            opts=here,
        )
        # Children name the namespace by its output: they go before it, one by one, instead of with it.
        inside: Any = {"namespace": namespace.metadata.name, "labels": labels}

        def named(label: str) -> Any:
            return {**inside, "name": label}

        account = kubernetes.core.v1.ServiceAccount(
            f"{name}-account",
            metadata=named(args.service_account),
            automount_service_account_token=False,  # it never asks the Kubernetes API
            opts=here,
        )
        # Named by Pulumi and immutable: a changed setting is a new map, and so a rollout that can be rolled back.
        settings = kubernetes.core.v1.ConfigMap(
            f"{name}-settings", metadata=inside, data=dict(args.settings), immutable=True, opts=here
        )
        environment: list[dict[str, Any]] = []
        versions: dict[str, pulumi.Input[str]] = {}
        if args.mlflow_token is not None:
            secret = kubernetes.core.v1.Secret(
                f"{name}-secret",
                metadata=named(args.secret_name),
                string_data={"CAPSTONE_TEST": args.mlflow_token},
                immutable=True,
                opts=here,
            )
            environment.append(
                {
                    "name": "CAPSTONE_TEST",
                    "value_from": {"secret_key_ref": {"name": args.secret_name, "key": "CAPSTONE_TEST"}},
                }
            )
            # Its name stays when its value changes: this is what makes pods start again with the new one.
            versions["atlas/secret-uid"] = secret.metadata.uid.apply(lambda uid: uid or "")
        self._policies(name, args, named, match)
        self._prometheus(name, args, named, labels)

        autoscaled = args.max_replicas is not None and args.max_replicas > args.replicas
        rollout: Any = {
            # The autoscaler's figure must not be reset by each `up`.
            **({} if autoscaled else {"replicas": args.replicas}),
            "revision_history_limit": 3,
            "progress_deadline_seconds": ROLLOUT_SECONDS,
            "min_ready_seconds": 5,
            "strategy": {"type": "RollingUpdate", "rolling_update": {"max_unavailable": 0, "max_surge": 1}},
            "selector": {"match_labels": match},
            "template": {
                "metadata": {"labels": labels, "annotations": versions},
                "spec": _pod(args, account.metadata.name, settings.metadata.name, environment, match),
            },
        }
        deployment = kubernetes.apps.v1.Deployment(
            f"{name}-deployment",
            metadata=named(args.app),
            spec=rollout,
            # A little longer than Kubernetes itself waits: its reason is the better one.
            opts=pulumi.ResourceOptions(
                parent=self, custom_timeouts=pulumi.CustomTimeouts(create="6m", update="6m", delete="5m")
            ),
        )
        if args.replicas >= 2:  # with one pod it would only block node updates
            kubernetes.policy.v1.PodDisruptionBudget(
                f"{name}-disruptions",
                metadata=named(args.app),
                spec={"max_unavailable": 1, "selector": {"match_labels": match}},
                opts=here,
            )
        if autoscaled:
            scaling: Any = {
                "scale_target_ref": {"api_version": "apps/v1", "kind": "Deployment", "name": args.app},
                "min_replicas": args.replicas,
                "max_replicas": args.max_replicas,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "average_utilization": 70},
                        },
                    }
                ],
            }
            kubernetes.autoscaling.v2.HorizontalPodAutoscaler(
                f"{name}-autoscaler",
                metadata=named(args.app),
                spec=scaling,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[deployment]),
            )
        balanced: Any = {**named(args.service_name), "annotations": _load_balancer(args)}
        exposed: Any = {
            "type": "LoadBalancer",
            # Any node takes a packet and passes it on to a ready pod, wherever that is: while pods move, nothing is
            # lost. Packets then come from nodes' addresses, which is what the NetworkPolicy admits. The price is one
            # hop and the caller's address, which the service doesn't use.
            "external_traffic_policy": "Cluster",
            "load_balancer_source_ranges": list(args.callers),
            "selector": match,
            "ports": [{"name": HTTP, "port": SERVICE_PORT, "target_port": HTTP, "protocol": "TCP"}],
        }
        service = kubernetes.core.v1.Service(
            f"{name}-service",
            metadata=balanced,
            spec=exposed,
            opts=pulumi.ResourceOptions(
                parent=self,
                # Not after the pods: both take minutes. The provider waits for a ready endpoint, so `up` ends with
                # an address that answers.
                custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m", delete=DELETE_TIMEOUT),
            ),
        )

        self.hostname = service.status.load_balancer.ingress[0].apply(lambda at: at.hostname or at.ip)
        self.register_outputs({"hostname": self.hostname})

    def _policies(self, name: str, args: WorkloadArgs, named: Callable[[str], Any], match: Mapping[str, str]) -> None:
        """Nothing in and nothing out, but for this."""
        here = pulumi.ResourceOptions(parent=self)
        kubernetes.networking.v1.NetworkPolicy(
            f"{name}-deny",
            metadata=named("default-deny"),
            spec={"pod_selector": {}, "policy_types": ["Ingress", "Egress"]},
            opts=here,
        )
        https = {443}
        if args.mlflow_tracking_uri is not None:
            server = urlsplit(args.mlflow_tracking_uri)
            https.add(server.port or (443 if server.scheme == "https" else 80))
        kubernetes.networking.v1.NetworkPolicy(
            f"{name}-traffic",
            metadata=named(args.app),
            spec={
                "pod_selector": {"match_labels": dict(match)},
                "policy_types": ["Ingress", "Egress"],
                "ingress": [
                    {
                        "from_": [{"ip_block": {"cidr": cidr}} for cidr in (*args.node_cidrs, args.prometheus_cidr)],
                        "ports": [{"port": SERVICE_PORT, "protocol": "TCP"}],
                    }
                ],
                "egress": [
                    {
                        "to": [
                            {
                                "namespace_selector": {"match_labels": {"kubernetes.io/metadata.name": "kube-system"}},
                                "pod_selector": {"match_labels": {"k8s-app": "kube-dns"}},
                            }
                        ],
                        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
                    },
                    # EKS Pod Identity's agent, on the node itself.
                    {"to": [{"ip_block": {"cidr": "169.254.170.23/32"}}], "ports": [{"port": 80, "protocol": "TCP"}]},
                    # S3 and the MLflow server: neither has addresses that could be listed.
                    {
                        "to": [{"ip_block": {"cidr": "0.0.0.0/0"}}],
                        "ports": [{"port": port, "protocol": "TCP"} for port in sorted(https)],
                    },
                ],
            },
            opts=here,
        )

    def _prometheus(
        self, name: str, args: WorkloadArgs, named: Callable[[str], Any], labels: Mapping[str, str]
    ) -> None:
        """Prometheus finds the app's pods, and reads kubelet's figures; `nodes/proxy` would let it run commands."""
        here = pulumi.ResourceOptions(parent=self)
        group: Any = {"kind": "Group", "name": args.prometheus_group, "api_group": "rbac.authorization.k8s.io"}
        look = ["get", "list", "watch"]

        def refer(kind: str, to: pulumi.Input[str]) -> Any:
            return {"api_group": "rbac.authorization.k8s.io", "kind": kind, "name": to}

        role = kubernetes.rbac.v1.Role(
            f"{name}-prometheus",
            metadata=named("prometheus"),
            rules=[{"api_groups": [""], "resources": ["pods"], "verbs": look}],
            opts=here,
        )
        kubernetes.rbac.v1.RoleBinding(
            f"{name}-prometheus",
            metadata=named("prometheus"),
            role_ref=refer("Role", role.metadata.name),
            subjects=[group],
            opts=here,
        )
        nodes = kubernetes.rbac.v1.ClusterRole(
            f"{name}-prometheus-nodes",
            metadata={"name": f"{args.app}-prometheus", "labels": dict(labels)},
            rules=[
                {"api_groups": [""], "resources": ["nodes"], "verbs": look},
                {"api_groups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
            ],
            opts=here,
        )
        kubernetes.rbac.v1.ClusterRoleBinding(
            f"{name}-prometheus-nodes",
            metadata={"name": f"{args.app}-prometheus", "labels": dict(labels)},
            role_ref=refer("ClusterRole", nodes.metadata.name),
            subjects=[group],
            opts=here,
        )


def _pod(
    args: WorkloadArgs,
    account: pulumi.Input[str],
    settings: pulumi.Input[str],
    environment: Sequence[Mapping[str, Any]],
    match: Mapping[str, str],
) -> dict[str, Any]:
    def probe(path: str, **more: int) -> dict[str, Any]:
        return {"http_get": {"path": path, "port": HTTP}, "timeout_seconds": 3, **more}

    return {
        "service_account_name": account,
        "automount_service_account_token": False,
        "enable_service_links": False,
        "termination_grace_period_seconds": GRACE_SECONDS,
        "security_context": {
            "run_as_non_root": True,
            "run_as_user": USER,
            "run_as_group": USER,
            "seccomp_profile": {"type": "RuntimeDefault"},
        },
        "topology_spread_constraints": [
            {
                "max_skew": 1,
                "topology_key": key,
                # Better two on one node than one nowhere.
                "when_unsatisfiable": "ScheduleAnyway",
                "label_selector": {"match_labels": dict(match)},
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        "containers": [
            {
                "name": "service",
                "image": args.image,
                "ports": [{"name": HTTP, "container_port": SERVICE_PORT, "protocol": "TCP"}],
                "env_from": [{"config_map_ref": {"name": settings}}],
                "env": list(environment),
                "resources": {
                    "requests": {"cpu": CPU_REQUEST, "memory": f"{int(args.memory_mib * MEMORY_REQUEST)}Mi"},
                    # A start takes 1.2 s of CPU; after it a worker uses one at most.
                    "limits": {"cpu": str(args.workers), "memory": f"{args.memory_mib}Mi"},
                },
                "security_context": {
                    "allow_privilege_escalation": False,
                    "read_only_root_filesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                # Loading a model takes seconds; until then neither of the other two counts.
                "startup_probe": probe(SERVICE_READY, period_seconds=2, failure_threshold=60),
                "readiness_probe": probe(SERVICE_READY, period_seconds=5, failure_threshold=2),
                "liveness_probe": probe("/health/live", period_seconds=10, failure_threshold=3),
                "lifecycle": {"pre_stop": {"sleep": {"seconds": DRAIN_SECONDS}}},
                # A container that dies leaves the end of its log as its reason, which `up` shows.
                "termination_message_policy": "FallbackToLogsOnError",
                "volume_mounts": [{"name": "tmp", "mount_path": "/tmp"}],  # noqa: S108 - the pod's own
            }
        ],
        # Metrics shared by the workers, and a registry's bundle.
        "volumes": [{"name": "tmp", "empty_dir": {"size_limit": "512Mi"}}],
    }


def _load_balancer(args: WorkloadArgs) -> dict[str, str]:
    """A network load balancer, made by the controller that EKS itself runs."""
    prefix = "service.beta.kubernetes.io/aws-load-balancer"
    annotations = {
        f"{prefix}-type": "nlb",
        f"{prefix}-cross-zone-load-balancing-enabled": "true",
        f"{prefix}-additional-resource-tags": ",".join(f"{key}={value}" for key, value in sorted(args.tags.items())),
    }
    if args.certificate_arn is not None:
        annotations |= {
            f"{prefix}-ssl-cert": args.certificate_arn,
            f"{prefix}-ssl-ports": str(SERVICE_PORT),
            f"{prefix}-ssl-negotiation-policy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
            f"{prefix}-backend-protocol": "tcp",
        }
    return annotations
