"""The service's identity in AWS: a role that only its pods can assume, through EKS Pod Identity."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from infra.components.pod_role import PodRoleArgs, pod_role
from infra.components.trust import policy_document
from infra.names import COMPONENT_TAG


@dataclass(frozen=True, slots=True)
class ServiceIdentityArgs:
    """The inputs of the component ServiceIdentity."""

    cluster_name: str
    namespace: str
    service_account: str
    bucket_arn: pulumi.Input[str]
    """The stack's data bucket."""
    table_arn: pulumi.Input[str] | None
    """The table of the feature store; None: there is none."""
    cluster: pulumi.Resource
    """The cluster, which must exist before the association."""
    tags: Mapping[str, str]


class ServiceIdentity(pulumi.ComponentResource):
    """Role, policy and association."""

    association: pulumi.Resource
    """A pod that is created before the association gets no credentials, so workloads depend on it."""

    def __init__(self, name: str, args: ServiceIdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:ServiceIdentity", name, None, opts)
        self.association = pod_role(
            name,
            PodRoleArgs(
                cluster_name=args.cluster_name,
                namespace=args.namespace,
                service_account=args.service_account,
                policy=pulumi.Output.all(args.bucket_arn, args.table_arn).apply(lambda arns: _policy(*arns)),
                cluster=args.cluster,
                tags={**args.tags, COMPONENT_TAG: "service"},
            ),
            pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})


def _policy(bucket_arn: str, table_arn: str | None) -> str:
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
    return json.dumps(policy_document(*bucket, *([] if table_arn is None else [features])))
