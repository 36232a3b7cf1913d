"""Rules about resources that store data: nothing public, TLS only, encrypted at rest."""

from collections.abc import Iterator, Sequence

from infra.policy.rule import Resource, allowed, items, rule, stack_rule, statements, true
from infra.settings import AwsSettings

BUCKET = "aws:s3/bucket:Bucket"
BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
VERSIONING = "aws:s3/bucketVersioning:BucketVersioning"
OLD_BUCKETS = ("aws:s3/bucketV2:BucketV2", "aws:s3/bucketObject:BucketObject")
COMPANIONS = {
    BLOCK: "no public access block",
    BUCKET_POLICY: "no policy that refuses plain HTTP",
    ENCRYPTION: "no encryption",
    VERSIONING: "no versioning",
}
"""The resources that every bucket needs, and the message when they are missing."""


@rule(BLOCK, ids=("CKV_AWS_53", "CKV_AWS_54", "CKV_AWS_55", "CKV_AWS_56", "CIS 2.1.4"))
def s3_public_access_blocked(resource: Resource) -> Iterator[str]:
    """A bucket's public access block blocks all four kinds of public access."""
    for closure in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"):
        if not true(resource.inputs.get(closure)):
            yield f"{closure} must be true"


@rule(BUCKET, "aws:s3/bucketAcl:BucketAcl", *OLD_BUCKETS, ids=("CKV_AWS_20", "CKV_AWS_57", "CKV2_AWS_43"))
def s3_no_public_acl(resource: Resource) -> Iterator[str]:
    """No access control list makes a bucket or object public."""
    acl = str(resource.inputs.get("acl") or "private")
    if acl.startswith(("public", "authenticated")):
        yield f"acl {acl} makes it public: remove it"


@rule(BUCKET_POLICY, ids=("CKV_AWS_379", "CIS 2.1.1"))
def s3_tls_only(resource: Resource) -> Iterator[str]:
    """A bucket's policy refuses every request without TLS."""
    for statement in statements(resource.inputs.get("policy")):
        tls = (statement.get("Condition") or {}).get("Bool", {}).get("aws:SecureTransport")
        everything = "s3:*" in items(statement.get("Action")) and len(items(statement.get("Resource"))) >= 2
        if statement.get("Effect") == "Deny" and str(tls).lower() == "false" and everything:
            return
    yield 'needs a Deny of s3:*, on bucket and objects, where aws:SecureTransport is "false"'


@rule(ENCRYPTION, ids=("CKV_AWS_19",))
def s3_encrypted(resource: Resource) -> Iterator[str]:
    """A bucket encrypts new objects."""
    for one in items(resource.inputs.get("rules")) or [{}]:
        if not (one.get("applyServerSideEncryptionByDefault") or {}).get("sseAlgorithm"):
            yield "needs applyServerSideEncryptionByDefault.sseAlgorithm: AES256 or aws:kms"


@rule(VERSIONING, ids=("CKV_AWS_21",))
def s3_versioned(resource: Resource) -> Iterator[str]:
    """A bucket keeps old versions of overwritten and deleted objects for some time."""
    if (resource.inputs.get("versioningConfiguration") or {}).get("status") != "Enabled":
        yield "versioningConfiguration.status must be Enabled"


@stack_rule(ids=("CKV2_AWS_6", "CKV_AWS_19", "CKV_AWS_21", "CKV_AWS_379"))
def s3_closed(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """Every bucket has a public access block, a TLS-only policy, encryption and versioning."""
    for bucket in resources:
        if bucket.kind == BUCKET or bucket.kind in OLD_BUCKETS[:1]:
            beside = {other.kind for other in resources if bucket.urn in other.uses.get("bucket", ())}
            for kind, lack in COMPANIONS.items():
                if kind not in beside:
                    yield bucket, f"the bucket has {lack}: use PrivateBucket, which declares all of it"


@rule(
    BUCKET_POLICY,
    "aws:ecr/repositoryPolicy:RepositoryPolicy",
    "aws:kms/key:Key",
    "aws:kms/keyPolicy:KeyPolicy",
    "aws:secretsmanager/secretPolicy:SecretPolicy",
    "aws:sns/topicPolicy:TopicPolicy",
    "aws:sqs/queuePolicy:QueuePolicy",
    ids=("CKV_AWS_70", "CKV_AWS_32", "CKV_AWS_33", "CKV_AWS_168", "CKV_AWS_169"),
)
def no_anonymous_access(resource: Resource) -> Iterator[str]:
    """No policy of a bucket, key, secret, topic, queue or repository grants access to everyone."""
    for statement in allowed(resource.inputs.get("policy")):
        principal = statement.get("Principal")
        everyone = principal == "*" or (not isinstance(principal, str) and "*" in items((principal or {}).get("AWS")))
        if everyone and not statement.get("Condition"):
            yield f"statement {statement.get('Sid', '')!r} grants access to everyone: name the principals"


@rule(
    "aws:ebs/volume:Volume",
    "aws:ec2/instance:Instance",
    "aws:ec2/launchTemplate:LaunchTemplate",
    "aws:ebs/snapshotCopy:SnapshotCopy",
    "aws:efs/fileSystem:FileSystem",
    "aws:rds/instance:Instance",
    "aws:rds/cluster:Cluster",
    ids=("CKV_AWS_3", "CKV_AWS_8", "CKV_AWS_16", "CKV_AWS_42", "CKV_AWS_96", "CKV2_AWS_2", "CIS 2.3.1", "CIS 2.4.1"),
)
def disks_encrypted(resource: Resource) -> Iterator[str]:
    """Every disk, file system and database is encrypted at rest, including each disk of an instance."""
    inputs = resource.inputs
    if resource.kind == "aws:ec2/instance:Instance":
        disks = {"rootBlockDevice": inputs.get("rootBlockDevice") or {}}
        disks |= {f"ebsBlockDevices {index}": disk for index, disk in enumerate(items(inputs.get("ebsBlockDevices")))}
    elif resource.kind == "aws:ec2/launchTemplate:LaunchTemplate":
        mappings = items(inputs.get("blockDeviceMappings")) or [{}]
        disks = {
            f"blockDeviceMappings {mapping.get('deviceName', '')}": mapping.get("ebs") or {} for mapping in mappings
        }
    else:
        disks = {"": inputs}
    for label, disk in disks.items():
        if not (true(disk.get("encrypted")) or true(disk.get("storageEncrypted"))):
            yield f"{label}: encrypted must be true".removeprefix(": ")


@rule("aws:sns/topic:Topic", ids=("CKV_AWS_26",))
def topics_encrypted(resource: Resource) -> Iterator[str]:
    """A topic's messages are encrypted at rest."""
    if not resource.inputs.get("kmsMasterKeyId"):
        yield "needs kmsMasterKeyId: a key whose policy lets all publishers use it"


@rule("aws:ssm/parameter:Parameter", ids=("CKV2_AWS_34",))
def parameters_encrypted(resource: Resource) -> Iterator[str]:
    """A parameter of Systems Manager is a SecureString."""
    if resource.inputs.get("type") != "SecureString":
        yield "type must be SecureString"


@rule("aws:dynamodb/table:Table", ids=("CKV_AWS_28",))
def tables_recoverable(resource: Resource) -> Iterator[str]:
    """A DynamoDB table can be restored to any moment of its last weeks."""
    if not true((resource.inputs.get("pointInTimeRecovery") or {}).get("enabled")):
        yield "pointInTimeRecovery.enabled must be true"


@rule("aws:dynamodb/table:Table")
def tables_protected(resource: Resource) -> Iterator[str]:
    """A DynamoDB table refuses its deletion, except in a disposable stack."""
    # There is no rule about encryption: DynamoDB encrypts every table, and no input turns that off.
    disposable = isinstance(resource.settings, AwsSettings) and resource.settings.disposable
    if not disposable and not true(resource.inputs.get("deletionProtectionEnabled")):
        yield "deletionProtectionEnabled must be true, unless atlas:disposable is true"


@rule("aws:kms/key:Key", ids=("CKV_AWS_7", "CIS 3.6"))
def keys_rotate(resource: Resource) -> Iterator[str]:
    """A customer managed key is rotated every year."""
    if not true(resource.inputs.get("enableKeyRotation")):
        yield "enableKeyRotation must be true"


@rule("aws:ecr/repository:Repository", ids=("CKV_AWS_51", "CKV_AWS_163", "CIS EKS 5.1.1"))
def images_fixed_and_scanned(resource: Resource) -> Iterator[str]:
    """Tags in the image registry are immutable, and every pushed image is scanned."""
    if resource.inputs.get("imageTagMutability") != "IMMUTABLE":
        yield "imageTagMutability must be IMMUTABLE"
    if not true((resource.inputs.get("imageScanningConfiguration") or {}).get("scanOnPush")):
        yield "imageScanningConfiguration.scanOnPush must be true"
