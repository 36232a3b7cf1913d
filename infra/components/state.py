"""Where the stacks' state is kept: a bucket, and the key that encrypts it and the stacks' secrets."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.private_bucket import PrivateBucket, PrivateBucketArgs

ALIAS = "alias/atlas-state"
"""The key's name in stack files: a key made anew keeps it."""


@dataclass(frozen=True, slots=True)
class StateArgs:
    """What the state's place needs to know."""

    bucket: str
    """Its name: known beforehand, so that any machine finds it."""
    closing: bool
    """About to be destroyed: the bucket may go with all that is in it."""
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
            deletion_window_in_days=30,  # the longest: who still has a state file can take the deletion back
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, protect=not args.closing),
        )
        aws.kms.Alias(f"{name}-alias", name=ALIAS, target_key_id=key.key_id, opts=pulumi.ResourceOptions(parent=self))
        bucket = PrivateBucket(
            name,
            # A year: what the state was is what a mistake is undone with.
            PrivateBucketArgs(args.closing, args.tags, noncurrent_days=365, name=args.bucket, key_arn=key.arn),
            pulumi.ResourceOptions(parent=self),
        )

        self.bucket_arn = bucket.arn
        self.key_arn = key.arn
        self.register_outputs({"bucket_arn": self.bucket_arn, "key_arn": self.key_arn})
