"""What is kept: buckets, images, the password's secret; and alerts and budget. Names begin with the stack's."""

from collections.abc import Sequence

from infra.permissions.grant import EVERYTHING, Grant, Scope


def _objects(scope: Scope) -> list[str]:
    return [f"{bucket}/*" for bucket in scope.buckets]


def _disposable(scope: Scope) -> list[str]:
    """Buckets that may go: of a stack that is not disposable only the hosts' configuration, which is made again."""
    return scope.buckets if scope.settings.disposable else [f"arn:aws:s3:::{scope.prefix}-config-bucket-*"]


def read(scope: Scope) -> list[Grant]:
    """What there is; no secret's value, and of the data what DVC keeps."""
    return [
        Grant(
            "SeeBuckets",
            "the buckets' settings, and names in them",
            [
                f"s3:{action}"
                for action in (
                    "GetAccelerateConfiguration", "GetBucketAcl", "GetBucketCORS", "GetBucketLocation",
                    "GetBucketLogging", "GetBucketObjectLockConfiguration", "GetBucketOwnershipControls",
                    "GetBucketPolicy", "GetBucketPublicAccessBlock", "GetBucketRequestPayment", "GetBucketTagging",
                    "GetBucketVersioning", "GetBucketWebsite", "GetEncryptionConfiguration",
                    "GetLifecycleConfiguration", "GetReplicationConfiguration", "ListBucket",
                )
            ],
            scope.buckets,
        ),
        Grant(
            "ReadDvcAndConfiguration",
            "`dvc pull` before a preview; the hosts' configuration, which a refresh compares",
            ["s3:GetObject", "s3:GetObjectTagging"],
            [f"arn:aws:s3:::{scope.prefix}-data-bucket-*/dvc/*", f"arn:aws:s3:::{scope.prefix}-config-bucket-*/*"],
        ),
        Grant("LogInToEcr", "the token is the account's: no finer resource", ["ecr:GetAuthorizationToken"], EVERYTHING),
        Grant(
            "SeeRegistries",
            "`atlas destroy` looks through all of the account for the stack's",
            ["ecr:DescribeRepositories"],
            scope.arn("ecr", "repository/*"),
        ),
        Grant(
            "SeeImages",
            "the registry, its images, and whether a layer is there",
            [
                f"ecr:{action}"
                for action in (
                    "BatchCheckLayerAvailability", "BatchGetImage", "DescribeImageScanFindings", "DescribeImages",
                    "GetDownloadUrlForLayer", "GetLifecyclePolicy", "GetRepositoryPolicy",
                    "ListImages", "ListTagsForResource",
                )
            ],
            scope.arn("ecr", f"repository/{scope.prefix}/*"),
        ),
        Grant(
            "SeeSecret",
            "that the secret is there; not its value",
            [f"secretsmanager:{what}" for what in ("DescribeSecret", "GetResourcePolicy", "ListSecretVersionIds")],
            scope.arn("secretsmanager", f"secret:{scope.prefix}/*"),
        ),
        Grant(
            "SeeTopic",
            "who is told of alerts",
            ["sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic",
             "sns:ListTagsForResource"],
            scope.arn("sns", f"{scope.prefix}-topic-*"),
        ),
        Grant(
            "SeeBudget",
            "the month's budget",
            ["budgets:ListTagsForResource", "budgets:ViewBudget"],
            [f"arn:aws:budgets::{scope.home.account_id}:budget/{scope.prefix}-budget-*"],
        ),
        Grant(
            "SeeUbuntu",
            "which image of Ubuntu is Canonical's latest",
            ["ssm:GetParameter", "ssm:GetParameters"],
            [f"arn:aws:ssm:{scope.settings.region}::parameter/aws/service/canonical/*"],
        ),
        Grant(
            "SeeWhatIsTagged",
            "`atlas status` and `atlas destroy`: hosts, load balancers, all that has the tag; no finer resource",
            [
                "elasticloadbalancing:DescribeLoadBalancers", "elasticloadbalancing:DescribeTags",
                "elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetHealth",
                "kms:ListAliases", "secretsmanager:ListSecrets", "sns:GetSubscriptionAttributes",
                "ssm:DescribeInstanceInformation", "tag:GetResources",
            ],
            EVERYTHING,
            scope.here,
        ),
    ]  # fmt: skip


def change(scope: Scope) -> list[Grant]:
    """Make and fill it."""
    return [
        Grant(
            "ChangeBuckets",
            "private, encrypted, versioned, TLS only",
            [
                f"s3:{action}"
                for action in (
                    "CreateBucket", "DeleteBucketPolicy", "PutBucketOwnershipControls", "PutBucketPolicy",
                    "PutBucketPublicAccessBlock", "PutBucketTagging", "PutBucketVersioning",
                    "PutEncryptionConfiguration", "PutLifecycleConfiguration",
                )
            ],
            scope.buckets,
        ),
        Grant(
            "WriteConfigurationAndDvc",
            "the hosts' configuration; `dvc push` of what a job made",
            ["s3:PutObject", "s3:PutObjectTagging"],
            [f"arn:aws:s3:::{scope.prefix}-data-bucket-*/dvc/*", f"arn:aws:s3:::{scope.prefix}-config-bucket-*/*"],
        ),
        Grant(
            "ReplaceConfiguration",
            "a file of the hosts' configuration that is no longer there",
            ["s3:DeleteObject"],
            [f"arn:aws:s3:::{scope.prefix}-config-bucket-*/*"],
        ),
        Grant(
            "ChangeRegistry",
            "the registry, and images into it; a tag that is there stays",
            [
                f"ecr:{action}"
                for action in (
                    "CompleteLayerUpload", "CreateRepository", "DeleteLifecyclePolicy", "InitiateLayerUpload",
                    "PutImage", "PutImageScanningConfiguration", "PutImageTagMutability", "PutLifecyclePolicy",
                    "TagResource", "UntagResource", "UploadLayerPart",
                )
            ],
            scope.arn("ecr", f"repository/{scope.prefix}/*"),
        ),
        Grant(
            "ChangeSecret",
            "Grafana's password; the engine compares its value",
            [
                f"secretsmanager:{action}"
                for action in (
                    "CreateSecret", "GetSecretValue", "PutSecretValue", "TagResource", "UntagResource", "UpdateSecret",
                    "UpdateSecretVersionStage",
                )
            ],
            scope.arn("secretsmanager", f"secret:{scope.prefix}/*"),
        ),
        Grant(
            "ChangeTopic",
            "where alerts go",
            [
                "sns:CreateTopic", "sns:SetTopicAttributes", "sns:Subscribe",
                "sns:TagResource", "sns:UntagResource",
            ],
            scope.arn("sns", f"{scope.prefix}-topic-*"),
        ),
        Grant(
            "ChangeBudget",
            "made, changed and deleted by one action",
            ["budgets:ModifyBudget", "budgets:TagResource", "budgets:UntagResource"],
            [f"arn:aws:budgets::{scope.home.account_id}:budget/{scope.prefix}-budget-*"],
        ),
    ]  # fmt: skip


def remove(scope: Scope) -> list[Grant]:
    """Delete it; of a stack that is not disposable nothing that holds data."""
    buckets = _disposable(scope)
    kept: list[Grant] = []
    if scope.settings.disposable:
        kept = [
            Grant(
                "RemoveRegistry",
                "with its images",
                ["ecr:BatchDeleteImage", "ecr:DeleteRepository"],
                scope.arn("ecr", f"repository/{scope.prefix}/*"),
            ),
        ]
    return [
        *kept,
        Grant(
            "RemoveBuckets",
            "with every version of what is in them",
            ["s3:DeleteBucket", "s3:DeleteBucketPolicy", "s3:ListBucketVersions", "s3:PutBucketPublicAccessBlock",
             "s3:PutBucketOwnershipControls", "s3:PutBucketVersioning", "s3:PutEncryptionConfiguration",
             "s3:PutLifecycleConfiguration"],
            buckets,
        ),
        Grant(
            "RemoveObjects",
            "and the versions",
            ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            [f"{bucket}/*" for bucket in buckets],
        ),
        Grant(
            "RemoveSecret",
            "Grafana's password goes with its host",
            ["secretsmanager:DeleteSecret"],
            scope.arn("secretsmanager", f"secret:{scope.prefix}/*"),
        ),
        Grant(
            "RemoveTopic",
            "and who is told",
            ["sns:DeleteTopic"],
            scope.arn("sns", f"{scope.prefix}-topic-*"),
        ),
        Grant(
            "RemoveSubscription",
            "a subscription has no resource in IAM",
            ["sns:SetSubscriptionAttributes", "sns:Unsubscribe"],
            EVERYTHING,
            scope.here,
        ),
        Grant(
            "RemoveBudget",
            "made, changed and deleted by one action",
            ["budgets:ModifyBudget"],
            [f"arn:aws:budgets::{scope.home.account_id}:budget/{scope.prefix}-budget-*"],
        ),
        Grant(
            "RemoveRegistrysRules",
            "which images expire",
            ["ecr:DeleteLifecyclePolicy"],
            scope.arn("ecr", f"repository/{scope.prefix}/*"),
        ),
    ]  # fmt: skip


def copy(sources: Sequence[Scope]) -> list[Grant]:
    """Images of other stacks, for `atlas promote`."""
    return [
        Grant(
            "CopyImages",
            "a promotion takes the very image that was tried elsewhere",
            ["ecr:BatchGetImage", "ecr:DescribeImages", "ecr:GetDownloadUrlForLayer"],
            [arn for scope in sources for arn in scope.arn("ecr", f"repository/{scope.prefix}/*")],
        )
    ]
