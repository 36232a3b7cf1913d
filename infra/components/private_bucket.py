"""A private bucket: encrypted, versioned, accessible only with TLS and IAM permissions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.trust import policy_document


@dataclass(frozen=True, slots=True)
class PrivateBucketArgs:
    """The inputs of the component PrivateBucket."""

    disposable: bool
    """Let `pulumi destroy` delete the objects and their versions too; otherwise the bucket is protected."""
    tags: Mapping[str, str]
    noncurrent_days: int = 30
    """Number of days for which an overwritten or deleted object can be recovered."""
    name: str | None = None
    """Its name; None: Pulumi generates a name, because bucket names must be globally unique."""
    key_arn: pulumi.Input[str] | None = None
    """The KMS key that encrypts it; None: a key of S3."""


class PrivateBucket(pulumi.ComponentResource):
    """The bucket with its policy.

    Outputs:
        bucket: its name.
        arn: its ARN.
    """

    bucket: pulumi.Output[str]
    arn: pulumi.Output[str]

    def __init__(self, name: str, args: PrivateBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:PrivateBucket", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)

        bucket = aws.s3.Bucket(
            f"{name}-bucket",
            bucket=args.name,
            force_destroy=args.disposable,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, protect=not args.disposable),
        )
        closed = aws.s3.BucketPublicAccessBlock(
            f"{name}-closed",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=here,
        )
        aws.s3.BucketOwnershipControls(
            f"{name}-ownership", bucket=bucket.id, rule={"object_ownership": "BucketOwnerEnforced"}, opts=here
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encryption",
            bucket=bucket.id,
            rules=[_encryption(args.key_arn)],
            opts=here,
        )
        versioning = aws.s3.BucketVersioning(
            f"{name}-versioning", bucket=bucket.id, versioning_configuration={"status": "Enabled"}, opts=here
        )
        aws.s3.BucketLifecycleConfiguration(
            f"{name}-lifecycle",
            bucket=bucket.id,
            rules=[
                {
                    "id": "old-versions",
                    "status": "Enabled",
                    "filter": {},
                    "noncurrent_version_expiration": {"noncurrent_days": args.noncurrent_days},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
                }
            ],
            # S3 accepts rules about versions only after versioning is enabled.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[versioning]),
        )
        aws.s3.BucketPolicy(
            f"{name}-policy",
            bucket=bucket.id,
            policy=bucket.arn.apply(_tls_only),
            # Both change the bucket's access settings, and S3 refuses concurrent changes (OperationAborted).
            opts=pulumi.ResourceOptions(parent=self, depends_on=[closed]),
        )

        self.bucket = bucket.bucket
        self.arn = bucket.arn
        self.register_outputs({"bucket": self.bucket, "arn": self.arn})


def _encryption(key_arn: pulumi.Input[str] | None) -> aws.s3.BucketServerSideEncryptionConfigurationRuleArgs:
    """Encryption with a key of S3, or with the given key; a bucket key then saves KMS requests for each object."""
    return aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
        apply_server_side_encryption_by_default=(
            aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                sse_algorithm="AES256" if key_arn is None else "aws:kms", kms_master_key_id=key_arn
            )
        ),
        bucket_key_enabled=None if key_arn is None else True,
    )


def _tls_only(arn: str) -> str:
    return json.dumps(
        policy_document(
            {
                "Sid": "OnlyTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        )
    )
