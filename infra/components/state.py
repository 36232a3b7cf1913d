"""The storage of the stacks' state: a bucket, and the key that encrypts the bucket and the stacks' secrets."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.private_bucket import PrivateBucket, PrivateBucketArgs

ALIAS = "alias/atlas-state"
"""The key's alias, which stack files name; if the key is replaced, the alias stays the same."""


@dataclass(frozen=True, slots=True)
class StateArgs:
    """The inputs of the component State."""

    bucket: str
    """The bucket's name; it is fixed, so that any machine can find the bucket."""
    closing: bool
    """Whether it is about to be destroyed: the bucket may then be deleted with its content."""
    tags: Mapping[str, str]


class State(pulumi.ComponentResource):
    """Bucket and key.

    Outputs:
        bucket_arn: of the bucket.
        key_arn: of the key.
    """

    bucket_arn: pulumi.Output[str]
    key_arn: pulumi.Output[str]

    def __init__(self, name: str, args: StateArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:State", name, None, opts)
        key = aws.kms.Key(
            f"{name}-key",
            description="State and secrets of Atlas's stacks",
            enable_key_rotation=True,
            deletion_window_in_days=30,  # the maximum: until then the deletion can be cancelled
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, protect=not args.closing),
        )
        aws.kms.Alias(f"{name}-alias", name=ALIAS, target_key_id=key.key_id, opts=pulumi.ResourceOptions(parent=self))
        bucket = PrivateBucket(
            name,
            # Keep old versions for a year, so that mistakes can be undone.
            PrivateBucketArgs(args.closing, args.tags, noncurrent_days=365, name=args.bucket, key_arn=key.arn),
            pulumi.ResourceOptions(parent=self),
        )

        self.bucket_arn = bucket.arn
        self.key_arn = key.arn
        self.register_outputs({"bucket_arn": self.bucket_arn, "key_arn": self.key_arn})
