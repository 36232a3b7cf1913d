"""Who may talk to whom for monitoring: rules between operators, the two hosts and the cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

PROMETHEUS, GRAFANA, NODE_EXPORTER, KUBELET, API = 9090, 3000, 9100, 10250, 443


@dataclass(frozen=True, slots=True)
class MonitoringAccessArgs:
    """What the rules need to know: three security groups, and the operators."""

    prometheus: pulumi.Input[str]
    grafana: pulumi.Input[str]
    cluster: pulumi.Input[str]
    service_port: int
    operator_cidrs: Sequence[str]
    tags: Mapping[str, str]


class MonitoringAccess(pulumi.ComponentResource):
    """Security group rules; no outputs."""

    def __init__(self, name: str, args: MonitoringAccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:MonitoringAccess", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)
        tags = {**args.tags, "component": "monitoring"}

        def path(label: str, source: pulumi.Input[str], target: pulumi.Input[str], port: int, why: str) -> None:
            """Both ends of one way: out of the source group, into the target group."""
            aws.vpc.SecurityGroupEgressRule(
                f"{name}-{label}-out",
                security_group_id=source,
                referenced_security_group_id=target,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                description=why,
                tags=tags,
                opts=here,
            )
            aws.vpc.SecurityGroupIngressRule(
                f"{name}-{label}-in",
                security_group_id=target,
                referenced_security_group_id=source,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                description=why,
                tags=tags,
                opts=here,
            )

        path("queries", args.grafana, args.prometheus, PROMETHEUS, "Dashboards ask Prometheus")
        path("grafana", args.prometheus, args.grafana, GRAFANA, "Prometheus asks Grafana for its metrics")
        path("node-exporter", args.prometheus, args.grafana, NODE_EXPORTER, "Prometheus asks the other host")
        path("api", args.prometheus, args.cluster, API, "Prometheus finds pods and nodes")
        path("pods", args.prometheus, args.cluster, args.service_port, "Prometheus asks the pods of the service")
        path("kubelet", args.prometheus, args.cluster, KUBELET, "Prometheus asks kubelet and cAdvisor")
        for index, cidr in enumerate(args.operator_cidrs):
            for label, group, port in (("prometheus", args.prometheus, PROMETHEUS), ("grafana", args.grafana, GRAFANA)):
                aws.vpc.SecurityGroupIngressRule(
                    f"{name}-operator-{index}-{label}",
                    security_group_id=group,
                    cidr_ipv4=cidr,
                    ip_protocol="tcp",
                    from_port=port,
                    to_port=port,
                    description="Operators",
                    tags=tags,
                    opts=here,
                )
