"""Identities of pods in AWS: roles that only the pods of a service account can assume, through EKS Pod Identity."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components.trust import policy_document, trusted
from infra.names import VIEW_FILES


@dataclass(frozen=True, slots=True)
class PodIdentityArgs:
    """The inputs of the component PodIdentity."""

    cluster_name: str
    namespace: str
    service_account: str
    policy: pulumi.Input[str]
    """The document of the role's permissions: service_policy or materializer_policy."""
    cluster: pulumi.Resource
    """The cluster, which must exist before the association."""
    tags: Mapping[str, str]


class PodIdentity(pulumi.ComponentResource):
    """Role, policy and association."""

    association: pulumi.Resource
    """A pod that is created before the association gets no credentials, so workloads depend on it."""

    def __init__(self, kind: str, name: str, args: PodIdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """`kind`: whose identity it is; states know the service's and the materialiser's as components of two types."""
        super().__init__(f"atlas:aws:{kind}Identity", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)

        role = aws.iam.Role(
            f"{name}-role",
            assume_role_policy=trusted("pods.eks.amazonaws.com", ["sts:AssumeRole", "sts:TagSession"]),
            tags=args.tags,
            opts=here,
        )
        aws.iam.RolePolicy(f"{name}-policy", role=role.name, policy=args.policy, opts=here)
        self.association = aws.eks.PodIdentityAssociation(
            f"{name}-association",
            cluster_name=args.cluster_name,
            namespace=args.namespace,
            service_account=args.service_account,
            role_arn=role.arn,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[args.cluster]),
        )

        self.register_outputs({})


def service_policy(bucket_arn: pulumi.Input[str], table_arn: pulumi.Input[str] | None) -> pulumi.Output[str]:
    """What the service may do in the stack's data bucket, and in the table of its feature store, if there is one."""
    return pulumi.Output.all(bucket_arn, table_arn).apply(lambda arns: json.dumps(_service(*arns)))


def materializer_policy(bucket_arn: pulumi.Input[str], table_arn: pulumi.Input[str]) -> pulumi.Output[str]:
    """What the materialiser may do in the stack's data bucket, and in the table of the feature store."""
    return pulumi.Output.all(bucket_arn, table_arn).apply(lambda arns: json.dumps(_materializer(*arns)))


def _service(bucket_arn: str, table_arn: str | None) -> dict[str, Any]:
    bucket = [
        {
            "Sid": "ReadOwnPrefix",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": f"{bucket_arn}/service/*",
        },
        {
            "Sid": "WritePredictionLogs",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": f"{bucket_arn}/predictions/*",
        },
    ]
    features = {
        "Sid": "LookUpFeatures",
        "Effect": "Allow",
        "Action": ["dynamodb:BatchGetItem", "dynamodb:GetItem"],
        "Resource": table_arn,
    }
    return policy_document(*bucket, *([] if table_arn is None else [features]))


def _materializer(bucket_arn: str, table_arn: str) -> dict[str, Any]:
    return policy_document(
        {
            "Sid": "WriteFeatures",
            "Effect": "Allow",
            "Action": [
                "dynamodb:BatchGetItem",
                "dynamodb:BatchWriteItem",
                "dynamodb:GetItem",
                "dynamodb:UpdateItem",
            ],
            "Resource": table_arn,
        },
        {
            "Sid": "ReadFilesOfViews",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": f"{bucket_arn}/{VIEW_FILES}/*",
        },
        {
            # For a folder of Parquet files; and without it, a missing file would look like a missing permission.
            "Sid": "FindFilesOfViews",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": bucket_arn,
            "Condition": {"StringLike": {"s3:prefix": f"{VIEW_FILES}/*"}},
        },
    )
