"""The rule about tags: every AWS resource shows which stack it belongs to."""

from collections.abc import Iterator

from infra.names import MANAGER_TAG, PROJECT_TAG, STACK_TAG
from infra.policy.rule import Resource, items, rule

TAGS = (PROJECT_TAG, STACK_TAG, MANAGER_TAG)
TAGLESS = frozenset(
    {
        "aws:ec2/route:Route",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:ec2/volumeAttachment:VolumeAttachment",
        "aws:ecr/lifecyclePolicy:LifecyclePolicy",
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "aws:kms/alias:Alias",
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls",
        "aws:s3/bucketPolicy:BucketPolicy",
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "aws:s3/bucketVersioning:BucketVersioning",
        "aws:secretsmanager/secretVersion:SecretVersion",
        "aws:sns/topicSubscription:TopicSubscription",
    }
)
"""Types that can't have tags in AWS."""


@rule("aws:")
def tagged(resource: Resource) -> Iterator[str]:
    """Every AWS resource that can have tags has the tags project, stack and managed-by; so do disks and nodes."""
    if resource.kind in TAGLESS:
        return
    given = {"": resource.inputs.get("tags") or {}}
    if resource.kind == "aws:ec2/instance:Instance":
        given["rootBlockDevice "] = (resource.inputs.get("rootBlockDevice") or {}).get("tags") or {}
    if resource.kind == "aws:ec2/launchTemplate:LaunchTemplate":
        made = {one["resourceType"]: one.get("tags") or {} for one in items(resource.inputs.get("tagSpecifications"))}
        given |= {f"tagSpecifications {kind} ": made.get(kind, {}) for kind in ("instance", "volume")}
    for where, tags in given.items():
        missing = [tag for tag in TAGS if not tags.get(tag)]
        if missing:
            yield f"{where}lacks the tags {', '.join(missing)} (if the type can't have tags, add it to TAGLESS)"
