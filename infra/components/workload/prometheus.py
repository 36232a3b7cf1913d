"""Prometheus's permissions in the cluster: to find the app's pods, and to read kubelets' metrics."""

import pulumi
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.rbac.v1 import (
    ClusterRole,
    ClusterRoleBinding,
    PolicyRuleArgs,
    Role,
    RoleBinding,
    RoleRefArgs,
    SubjectArgs,
)

from infra.components.workload.args import OURS, Part

RBAC = "rbac.authorization.k8s.io"
LOOK = ("get", "list", "watch")


def admit_prometheus(part: Part) -> None:
    """Declare the permissions. From kubelets only the metrics: `nodes/proxy` would allow Prometheus to run commands."""
    name, args = part.name, part.args
    group = SubjectArgs(kind="Group", name=args.prometheus_group, api_group=RBAC)
    role = Role(
        f"{name}-prometheus",
        metadata=part.inside("prometheus"),
        rules=[PolicyRuleArgs(api_groups=[""], resources=["pods"], verbs=LOOK)],
        opts=part.here,
    )
    RoleBinding(
        f"{name}-prometheus",
        metadata=part.inside("prometheus"),
        role_ref=_reference("Role", role.metadata.name),
        subjects=[group],
        opts=part.here,
    )
    everywhere = ObjectMetaArgs(name=f"{args.app}-prometheus", labels=args.labels, annotations=OURS)
    nodes = ClusterRole(
        f"{name}-prometheus-nodes",
        metadata=everywhere,
        rules=[
            PolicyRuleArgs(api_groups=[""], resources=["nodes"], verbs=LOOK),
            PolicyRuleArgs(api_groups=[""], resources=["nodes/metrics"], verbs=["get"]),
        ],
        opts=part.here,
    )
    ClusterRoleBinding(
        f"{name}-prometheus-nodes",
        metadata=everywhere,
        role_ref=_reference("ClusterRole", nodes.metadata.name),
        subjects=[group],
        opts=part.here,
    )


def _reference(kind: str, name: pulumi.Input[str]) -> RoleRefArgs:
    return RoleRefArgs(api_group=RBAC, kind=kind, name=name)
