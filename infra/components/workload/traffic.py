"""The pods' traffic: the load balancer, the allowed ingress and egress, and the number of pods."""

from collections.abc import Sequence
from urllib.parse import urlsplit

import pulumi
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.autoscaling.v2 import (
    CrossVersionObjectReferenceArgs,
    HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpecArgs,
    MetricSpecArgs,
    MetricTargetArgs,
    ResourceMetricSourceArgs,
)
from pulumi_kubernetes.core.v1 import Service, ServicePortArgs, ServiceSpecArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs
from pulumi_kubernetes.networking.v1 import (
    IPBlockArgs,
    NetworkPolicy,
    NetworkPolicyEgressRuleArgs,
    NetworkPolicyIngressRuleArgs,
    NetworkPolicyPeerArgs,
    NetworkPolicyPortArgs,
    NetworkPolicySpecArgs,
)
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpecArgs

from infra.components.workload.args import Part, WorkloadArgs
from infra.names import HTTP, SERVICE_PORT

DELETE_TIMEOUT = "20m"
"""Deleting a load balancer with its network interfaces takes minutes, and the network can't be deleted before it."""


def expose(part: Part) -> pulumi.Output[str]:
    """Declare the load balancer; returns its host name, or its IP address."""
    args = part.args
    service = Service(
        f"{part.name}-service",
        metadata=part.inside(args.service_name, _load_balancer(args)),
        spec=ServiceSpecArgs(
            type="LoadBalancer",
            # Every node accepts packets and forwards them to a ready pod on any node, so nothing is lost while pods
            # move. Pods then see the nodes' addresses, which the NetworkPolicy allows. The price is an additional hop,
            # and the loss of the caller's address, which the service doesn't use.
            external_traffic_policy="Cluster",
            load_balancer_source_ranges=list(args.callers),
            selector=args.match,
            ports=[ServicePortArgs(name=HTTP, port=SERVICE_PORT, target_port=HTTP, protocol="TCP")],
        ),
        opts=pulumi.ResourceOptions(
            parent=part.parent,
            # No dependency on the pods, because both take minutes. The provider waits for a ready endpoint, so `up`
            # ends with an address that answers.
            custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m", delete=DELETE_TIMEOUT),
        ),
    )
    return service.status.load_balancer.ingress[0].apply(lambda at: at.hostname or at.ip)


def keep_available(part: Part, deployment: Deployment) -> None:
    """Declare the autoscaler, and the budget that keeps pods available during node updates."""
    args = part.args
    if args.replicas >= 2:  # with a single pod it would only block node updates
        PodDisruptionBudget(
            f"{part.name}-disruptions",
            metadata=part.inside(args.app),
            spec=PodDisruptionBudgetSpecArgs(max_unavailable=1, selector=part.pods),
            opts=part.here,
        )
    if args.autoscaled:
        busy = ResourceMetricSourceArgs(name="cpu", target=MetricTargetArgs(type="Utilization", average_utilization=70))
        HorizontalPodAutoscaler(
            f"{part.name}-autoscaler",
            metadata=part.inside(args.app),
            spec=HorizontalPodAutoscalerSpecArgs(
                scale_target_ref=CrossVersionObjectReferenceArgs(
                    api_version="apps/v1", kind="Deployment", name=args.app
                ),
                min_replicas=args.replicas,
                max_replicas=args.most,
                metrics=[MetricSpecArgs(type="Resource", resource=busy)],
            ),
            # The autoscaler looks for its Deployment as soon as it is created.
            opts=pulumi.ResourceOptions(parent=part.parent, depends_on=[deployment]),
        )


def close(part: Part) -> None:
    """Deny all traffic, except the required ingress and egress."""
    args = part.args
    NetworkPolicy(
        f"{part.name}-deny",
        metadata=part.inside("default-deny"),
        spec=NetworkPolicySpecArgs(pod_selector=LabelSelectorArgs(), policy_types=["Ingress", "Egress"]),
        opts=part.here,
    )
    https = {443}
    if args.mlflow_tracking_uri is not None:
        server = urlsplit(args.mlflow_tracking_uri)
        https.add(server.port or (443 if server.scheme == "https" else 80))
    NetworkPolicy(
        f"{part.name}-traffic",
        metadata=part.inside(args.app),
        spec=NetworkPolicySpecArgs(
            pod_selector=part.pods,
            policy_types=["Ingress", "Egress"],
            ingress=[
                NetworkPolicyIngressRuleArgs(
                    from_=[network(cidr) for cidr in (*args.node_cidrs, args.prometheus_cidr)],
                    ports=[port(SERVICE_PORT)],
                )
            ],
            # S3, DynamoDB and the MLflow server, whose addresses aren't fixed.
            egress=egress(sorted(https)),
        ),
        opts=part.here,
    )


def egress(ports: Sequence[int]) -> list[NetworkPolicyEgressRuleArgs]:
    """What a pod may reach: names, its credentials, and these ports of every address."""
    dns = NetworkPolicyPeerArgs(
        namespace_selector=LabelSelectorArgs(match_labels={"kubernetes.io/metadata.name": "kube-system"}),
        pod_selector=LabelSelectorArgs(match_labels={"k8s-app": "kube-dns"}),
    )
    return [
        NetworkPolicyEgressRuleArgs(to=[dns], ports=[port(53, "UDP"), port(53)]),
        # The agent of EKS Pod Identity on the pod's own node.
        NetworkPolicyEgressRuleArgs(to=[network("169.254.170.23/32")], ports=[port(80)]),
        NetworkPolicyEgressRuleArgs(to=[network("0.0.0.0/0")], ports=[port(number) for number in ports]),
    ]


def network(cidr: str) -> NetworkPolicyPeerArgs:
    return NetworkPolicyPeerArgs(ip_block=IPBlockArgs(cidr=cidr))


def port(number: int, protocol: str = "TCP") -> NetworkPolicyPortArgs:
    return NetworkPolicyPortArgs(port=number, protocol=protocol)


def _load_balancer(args: WorkloadArgs) -> dict[str, str]:
    """The annotations for a network load balancer, which the controller in EKS's control plane creates."""
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
