"""The online feature store: a DynamoDB table from which the service looks features up (ml/features)."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.names import COMPONENT_TAG

ENTITY = "entity"
"""The partition key: what a row is about."""
BUCKET = "bucket"
"""The sort key: the span of time that a row belongs to."""
EXPIRES = "expires"
"""The attribute with the time, in seconds since 1970, after which DynamoDB deletes a row."""


@dataclass(frozen=True, slots=True)
class FeatureTableArgs:
    """The inputs of the component FeatureTable."""

    region: str
    disposable: bool
    """Let `pulumi destroy` delete the table with its rows; otherwise the table is protected, here and in AWS."""
    tags: Mapping[str, str]


class FeatureTable(pulumi.ComponentResource):
    """The table. DynamoDB encrypts every table, here with its own key, as S3 and ECR do with the stack's other data.

    Outputs:
        arn: its ARN.
        address: `dynamodb://…`, which service and materialiser take as FEATURE_STORE and `--store`.
    """

    arn: pulumi.Output[str]
    address: pulumi.Output[str]

    def __init__(self, name: str, args: FeatureTableArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:FeatureTable", name, None, opts)

        table = aws.dynamodb.Table(
            # The engine adds random characters: so a table that must be replaced exists beside its successor, and the
            # pods go on reading it until they have been replaced, too.
            name,
            billing_mode="PAY_PER_REQUEST",
            hash_key=ENTITY,
            range_key=BUCKET,
            attributes=[{"name": ENTITY, "type": "S"}, {"name": BUCKET, "type": "N"}],
            ttl={"attribute_name": EXPIRES, "enabled": True},
            point_in_time_recovery={"enabled": True},
            deletion_protection_enabled=not args.disposable,
            tags={**args.tags, COMPONENT_TAG: "features"},
            opts=pulumi.ResourceOptions(parent=self, protect=not args.disposable),
        )

        self.arn = table.arn
        self.address = pulumi.Output.concat("dynamodb://", table.name, f"?region={args.region}")
        self.register_outputs({"arn": self.arn, "address": self.address})
