"""What keeps data: nothing public, TLS only, encrypted at rest."""

from collections.abc import Iterator

from infra.policy.rule import Resource, rule, true

BUCKET_CLOSURES = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")


@rule(
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
    ids=("CKV_AWS_53", "CKV_AWS_54", "CKV_AWS_55", "CKV_AWS_56", "CIS 2.1.4"),
)
def s3_public_access_blocked(resource: Resource) -> Iterator[str]:
    """A bucket's public access block blocks all four kinds of public access."""
    for closure in BUCKET_CLOSURES:
        if not true(resource.inputs.get(closure)):
            yield f"{closure} must be true"
