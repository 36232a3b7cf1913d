"""Security group rules for monitoring, between operators, the two hosts and the cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_aws.vpc import SecurityGroupEgressRule as Egress
from pulumi_aws.vpc import SecurityGroupIngressRule as Ingress

from infra.names import (
    COMPONENT_TAG,
    GRAFANA_PORT,
    MATERIALIZER_PORT,
    NODE_EXPORTER_PORT,
    PROMETHEUS_PORT,
    SERVICE_PORT,
)

KUBELET_PORT, API_PORT = 10250, 443


@dataclass(frozen=True, slots=True)
class MonitoringAccessArgs:
    """The inputs of the component: three security groups, and the operators' networks."""

    prometheus: pulumi.Input[str]
    grafana: pulumi.Input[str]
    cluster: pulumi.Input[str]
    operator_cidrs: Sequence[str]
    materializer: bool
    """Whether a materialiser runs in the cluster."""
    tags: Mapping[str, str]


class MonitoringAccess(pulumi.ComponentResource):
    """Security group rules; no outputs."""

    def __init__(self, name: str, args: MonitoringAccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:MonitoringAccess", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)
        tags = {**args.tags, COMPONENT_TAG: "monitoring"}

        def rule(
            kind: type[Ingress | Egress], label: str, group: pulumi.Input[str], port: int, why: str, **peer: Any
        ) -> None:
            kind(
                f"{name}-{label}",
                security_group_id=group,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                description=why,
                tags=tags,
                opts=here,
                **peer,
            )

        def path(label: str, source: pulumi.Input[str], target: pulumi.Input[str], port: int, why: str) -> None:
            """The two rules of a connection: egress from the source group, ingress to the target group."""
            rule(Egress, f"{label}-out", source, port, why, referenced_security_group_id=target)
            rule(Ingress, f"{label}-in", target, port, why, referenced_security_group_id=source)

        path("queries", args.grafana, args.prometheus, PROMETHEUS_PORT, "Dashboards ask Prometheus")
        path("grafana", args.prometheus, args.grafana, GRAFANA_PORT, "Prometheus asks Grafana for its metrics")
        path("node-exporter", args.prometheus, args.grafana, NODE_EXPORTER_PORT, "Prometheus asks the other host")
        path("api", args.prometheus, args.cluster, API_PORT, "Prometheus finds pods and nodes")
        path("pods", args.prometheus, args.cluster, SERVICE_PORT, "Prometheus asks the pods of the service")
        if args.materializer:
            path("materializer", args.prometheus, args.cluster, MATERIALIZER_PORT, "Prometheus asks the materialiser")
        path("kubelet", args.prometheus, args.cluster, KUBELET_PORT, "Prometheus asks kubelet and cAdvisor")
        for index, cidr in enumerate(args.operator_cidrs):
            for label, group, port in (
                ("prometheus", args.prometheus, PROMETHEUS_PORT),
                ("grafana", args.grafana, GRAFANA_PORT),
            ):
                rule(Ingress, f"operator-{index}-{label}", group, port, "Operators", cidr_ipv4=cidr)
