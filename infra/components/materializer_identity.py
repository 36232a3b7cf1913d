"""The materialiser's identity in AWS: a role that only its pod can assume, through EKS Pod Identity."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from infra.components.pod_role import PodRoleArgs, pod_role
from infra.components.trust import policy_document
from infra.names import COMPONENT_TAG, VIEW_FILES


@dataclass(frozen=True, slots=True)
class MaterializerIdentityArgs:
    """The inputs of the component MaterializerIdentity."""

    cluster_name: str
    namespace: str
    service_account: str
    bucket_arn: pulumi.Input[str]
    """The stack's data bucket."""
    table_arn: pulumi.Input[str]
    """The table of the feature store."""
    cluster: pulumi.Resource
    """The cluster, which must exist before the association."""
    tags: Mapping[str, str]


class MaterializerIdentity(pulumi.ComponentResource):
    """Role, policy and association."""

    association: pulumi.Resource
    """A pod that is created before the association gets no credentials, so workloads depend on it."""

    def __init__(self, name: str, args: MaterializerIdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:MaterializerIdentity", name, None, opts)
        self.association = pod_role(
            name,
            PodRoleArgs(
                cluster_name=args.cluster_name,
                namespace=args.namespace,
                service_account=args.service_account,
                policy=pulumi.Output.all(args.bucket_arn, args.table_arn).apply(lambda arns: _policy(*arns)),
                cluster=args.cluster,
                tags={**args.tags, COMPONENT_TAG: "features"},
            ),
            pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})


def _policy(bucket_arn: str, table_arn: str) -> str:
    return json.dumps(
        policy_document(
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
    )
