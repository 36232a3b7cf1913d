"""A role in AWS that only the pods of a service account can assume, through EKS Pod Identity."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.trust import trusted


@dataclass(frozen=True, slots=True)
class PodRoleArgs:
    """What a pod's role needs."""

    cluster_name: str
    namespace: str
    service_account: str
    policy: pulumi.Input[str]
    """The document of the role's permissions."""
    cluster: pulumi.Resource
    """The cluster, which must exist before the association."""
    tags: Mapping[str, str]


def pod_role(name: str, args: PodRoleArgs, here: pulumi.ResourceOptions) -> aws.eks.PodIdentityAssociation:
    """Declare role, policy and association; returns the last, because a pod that is older gets no credentials."""
    role = aws.iam.Role(
        f"{name}-role",
        assume_role_policy=trusted("pods.eks.amazonaws.com", ["sts:AssumeRole", "sts:TagSession"]),
        tags=args.tags,
        opts=here,
    )
    aws.iam.RolePolicy(f"{name}-policy", role=role.name, policy=args.policy, opts=here)
    return aws.eks.PodIdentityAssociation(
        f"{name}-association",
        cluster_name=args.cluster_name,
        namespace=args.namespace,
        service_account=args.service_account,
        role_arn=role.arn,
        tags=args.tags,
        opts=pulumi.ResourceOptions.merge(here, pulumi.ResourceOptions(depends_on=[args.cluster])),
    )
