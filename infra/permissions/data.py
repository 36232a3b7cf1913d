"""Stored data (buckets, images, the password's secret), alerts and budget.

Their names begin with the stack's prefix.
"""

from collections.abc import Sequence

from infra.permissions.grant import EVERYTHING, Grant, Scope


def _disposable(scope: Scope) -> list[str]:
    """Buckets that may be deleted; if the stack isn't disposable, only that of the hosts' configuration."""
    return scope.buckets if scope.settings.disposable else [f"arn:aws:s3:::{scope.prefix}-config-bucket-*"]


def read(scope: Scope) -> list[Grant]:
    """Reading settings and DVC's data, but not the values of secrets."""
    return [
        Grant(
            "SeeBuckets",
            "the buckets' settings, and the names of their objects",
            [
                f"s3:{action}"
                for action in (
                    "GetAccelerateConfiguration", "GetBucketAcl", "GetBucketCORS", "GetBucketLocation",
                    "GetBucketLogging", "GetBucketObjectLockConfiguration", "GetBucketOwnershipControls",
                    "GetBucketPolicy", "GetBucketPublicAccessBlock", "GetBucketRequestPayment", "GetBucketTagging",
                    "GetBucketVersioning", "GetBucketWebsite", "GetEncryptionConfiguration",
                    "GetLifecycleConfiguration", "GetReplicationConfiguration", "ListBucket", "ListTagsForResource",
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
        Grant("LogInToEcr", "the token is per account: no finer resource", ["ecr:GetAuthorizationToken"], EVERYTHING),
        Grant(
            "SeeRegistries",
            "`atlas destroy` searches all repositories of the account for the stack's",
            ["ecr:DescribeRepositories"],
            scope.arn("ecr", "repository/*"),
        ),
        Grant(
            "SeeImages",
            "the registry, its images, and whether a layer exists",
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
            "SeeTables",
            "the settings of the feature store's table, not its rows",
            [
                f"dynamodb:{what}"
                for what in (
                    "DescribeContinuousBackups", "DescribeTable", "DescribeTimeToLive", "ListTagsOfResource",
                )
            ],
            scope.tables,
        ),
        Grant(
            "SeeSecret",
            "whether the secret exists; not its value",
            [f"secretsmanager:{what}" for what in ("DescribeSecret", "GetResourcePolicy", "ListSecretVersionIds")],
            scope.arn("secretsmanager", f"secret:{scope.prefix}/*"),
        ),
        Grant(
            "SeeTopic",
            "who gets the alerts",
            ["sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic",
             "sns:ListTagsForResource"],
            scope.arn("sns", f"{scope.prefix}-topic-*"),
        ),
        Grant(
            "SeeAlarms",
            "the alarms on the hosts; `atlas destroy` searches them by name",
            ["cloudwatch:DescribeAlarms", "cloudwatch:ListTagsForResource"],
            scope.arn("cloudwatch", "alarm:*"),
        ),
        Grant(
            "SeeBudget",
            "the month's budget",
            ["budgets:ListTagsForResource", "budgets:ViewBudget"],
            [f"arn:aws:budgets::{scope.home.account_id}:budget/{scope.prefix}-budget-*"],
        ),
        Grant(
            "SeeUbuntu",
            "the id of Canonical's latest Ubuntu image",
            ["ssm:GetParameter", "ssm:GetParameters"],
            [f"arn:aws:ssm:{scope.settings.region}::parameter/aws/service/canonical/*"],
        ),
        Grant(
            "SeeWhatIsTagged",
            "`atlas status` and `atlas destroy` list hosts, load balancers and tagged resources; no finer resource",
            [
                "dynamodb:ListTables",
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
    """Creating, changing and filling them."""
    return [
        Grant(
            "ChangeBuckets",
            "private, encrypted, versioned, TLS only",
            [
                f"s3:{action}"
                for action in (
                    "CreateBucket", "DeleteBucketPolicy", "PutBucketOwnershipControls", "PutBucketPolicy",
                    "PutBucketPublicAccessBlock", "PutBucketTagging", "PutBucketVersioning",
                    "PutEncryptionConfiguration", "PutLifecycleConfiguration", "TagResource", "UntagResource",
                )
            ],
            scope.buckets,
        ),
        Grant(
            "WriteConfigurationAndDvc",
            "the hosts' configuration; `dvc push` of a job's results",
            ["s3:PutObject", "s3:PutObjectTagging"],
            [f"arn:aws:s3:::{scope.prefix}-data-bucket-*/dvc/*", f"arn:aws:s3:::{scope.prefix}-config-bucket-*/*"],
        ),
        Grant(
            "ReplaceConfiguration",
            "files that are no longer part of the hosts' configuration",
            ["s3:DeleteObject"],
            [f"arn:aws:s3:::{scope.prefix}-config-bucket-*/*"],
        ),
        Grant(
            "ChangeRegistry",
            "the registry, and pushing images to it; existing tags can't be changed",
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
            "ChangeTables",
            "the feature store's table, its expiry, backups and protection",
            [
                f"dynamodb:{what}"
                for what in (
                    "CreateTable", "TagResource", "UntagResource", "UpdateContinuousBackups", "UpdateTable",
                    "UpdateTimeToLive",
                )
            ],
            scope.tables,
        ),
        Grant(
            "ChangeSecret",
            "Grafana's password; the engine reads its value to compare it",
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
            "the topic of alerts",
            [
                "sns:CreateTopic", "sns:SetTopicAttributes", "sns:Subscribe",
                "sns:TagResource", "sns:UntagResource",
            ],
            scope.arn("sns", f"{scope.prefix}-topic-*"),
        ),
        Grant(
            "ChangeAlarms",
            "the alarms on the hosts",
            ["cloudwatch:PutMetricAlarm", "cloudwatch:TagResource", "cloudwatch:UntagResource"],
            scope.arn("cloudwatch", f"alarm:{scope.prefix}-*"),
        ),
        Grant(
            "ChangeBudget",
            "AWS has a single action to create, change and delete a budget",
            ["budgets:ModifyBudget", "budgets:TagResource", "budgets:UntagResource"],
            [f"arn:aws:budgets::{scope.home.account_id}:budget/{scope.prefix}-budget-*"],
        ),
    ]  # fmt: skip


def remove(scope: Scope) -> list[Grant]:
    """Deleting them; if the stack isn't disposable, nothing that holds data."""
    buckets = _disposable(scope)
    kept: list[Grant] = []
    if scope.settings.disposable:
        kept = [
            Grant(
                "RemoveRegistry",
                "the registry with its images",
                ["ecr:BatchDeleteImage", "ecr:DeleteRepository"],
                scope.arn("ecr", f"repository/{scope.prefix}/*"),
            ),
            Grant("RemoveTables", "the feature store's table with its rows", ["dynamodb:DeleteTable"], scope.tables),
        ]
    return [
        *kept,
        Grant(
            "RemoveBuckets",
            "buckets and the settings that are removed with them",
            ["s3:DeleteBucket", "s3:DeleteBucketPolicy", "s3:ListBucketVersions", "s3:PutBucketPublicAccessBlock",
             "s3:PutBucketOwnershipControls", "s3:PutBucketVersioning", "s3:PutEncryptionConfiguration",
             "s3:PutLifecycleConfiguration"],
            buckets,
        ),
        Grant(
            "RemoveObjects",
            "objects and their versions",
            ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            [f"{bucket}/*" for bucket in buckets],
        ),
        Grant(
            "RemoveSecret",
            "Grafana's password is deleted with its host",
            ["secretsmanager:DeleteSecret"],
            scope.arn("secretsmanager", f"secret:{scope.prefix}/*"),
        ),
        Grant(
            "RemoveTopic",
            "the topic of alerts",
            ["sns:DeleteTopic"],
            scope.arn("sns", f"{scope.prefix}-topic-*"),
        ),
        Grant(
            "RemoveAlarms",
            "the alarms on the hosts",
            ["cloudwatch:DeleteAlarms"],
            scope.arn("cloudwatch", f"alarm:{scope.prefix}-*"),
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
            "AWS has a single action to create, change and delete a budget",
            ["budgets:ModifyBudget"],
            [f"arn:aws:budgets::{scope.home.account_id}:budget/{scope.prefix}-budget-*"],
        ),
        Grant(
            "RemoveRegistrysRules",
            "the rules by which images expire",
            ["ecr:DeleteLifecyclePolicy"],
            scope.arn("ecr", f"repository/{scope.prefix}/*"),
        ),
    ]  # fmt: skip


def copy(sources: Sequence[Scope]) -> list[Grant]:
    """Reading images of other stacks, for `atlas promote`."""
    return [
        Grant(
            "CopyImages",
            "a promotion copies the image that another stack runs",
            ["ecr:BatchGetImage", "ecr:DescribeImages", "ecr:GetDownloadUrlForLayer"],
            [arn for scope in sources for arn in scope.arn("ecr", f"repository/{scope.prefix}/*")],
        )
    ]
