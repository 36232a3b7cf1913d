"""EKS, the key of its secrets, its control plane's logs. The cluster's name is in every ARN."""

from infra.names import control_plane_logs
from infra.permissions.grant import EVERYTHING, Grant, Scope


def _in_cluster(scope: Scope) -> list[str]:
    name = scope.settings.cluster_name
    return scope.arn(
        "eks", f"cluster/{name}", f"nodegroup/{name}/*/*", f"addon/{name}/*/*", f"access-entry/{name}/*/*/*/*",
        f"podidentityassociation/{name}/*",
    )  # fmt: skip


def _logs(scope: Scope) -> list[str]:
    group = f"log-group:{control_plane_logs(scope.settings.cluster_name)}"
    return scope.arn("logs", group, f"{group}:*")


def read(scope: Scope) -> list[Grant]:
    """The cluster as EKS tells it; what runs in it is Kubernetes' to tell."""
    return [
        Grant(
            "SeeCluster",
            "the cluster, and all that EKS keeps for it",
            [
                f"eks:{action}"
                for action in (
                    "DescribeAccessEntry",
                    "DescribeAddon",
                    "DescribeCluster",
                    "DescribeNodegroup",
                    "DescribePodIdentityAssociation",
                    "DescribeUpdate",
                    "ListAccessEntries",
                    "ListAddons",
                    "ListAssociatedAccessPolicies",
                    "ListNodegroups",
                    "ListPodIdentityAssociations",
                    "ListTagsForResource",
                    "ListUpdates",
                )
            ],
            _in_cluster(scope),
        ),
        Grant(
            "SeeLists",
            "versions of add-ons, clusters and log groups there are: lists have no finer resource",
            ["eks:DescribeAddonVersions", "eks:ListClusters", "logs:DescribeLogGroups"],
            EVERYTHING,
            scope.here,
        ),
        Grant("SeeLogTags", "of the control plane's log group", ["logs:ListTagsForResource"], _logs(scope)),
        Grant(
            "SeeKey",
            "the key of the cluster's secrets",
            ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags"],
            scope.arn("kms", "key/*"),
            scope.own,
        ),
    ]


def change(scope: Scope) -> list[Grant]:
    """Make and change it."""
    return [
        Grant(
            "MakeCluster",
            "AWS has no resource for it: its tag says whose it is",
            ["eks:CreateCluster"],
            EVERYTHING,
            {"StringEquals": {"aws:RequestedRegion": scope.settings.region, "aws:RequestTag/stack": scope.stack}},
        ),
        Grant(
            "ChangeCluster",
            "cluster, nodes, add-ons, who may enter, the pods' identity",
            [
                f"eks:{action}"
                for action in (
                    "AssociateAccessPolicy", "CreateAccessEntry", "CreateAddon", "CreateNodegroup",
                    "CreatePodIdentityAssociation", "TagResource", "UntagResource", "UpdateAccessEntry", "UpdateAddon",
                    "UpdateClusterConfig", "UpdateClusterVersion", "UpdateNodegroupConfig", "UpdateNodegroupVersion",
                    "UpdatePodIdentityAssociation",
                )
            ],
            _in_cluster(scope),
        ),
        Grant(
            "ChangeLogGroup",
            "made before the cluster, so that its logs have an end",
            [
                "logs:CreateLogGroup", "logs:DeleteRetentionPolicy", "logs:PutRetentionPolicy", "logs:TagResource",
                "logs:UntagResource",
            ],
            _logs(scope),
        ),
        Grant(
            "MakeKey",
            "a key has no name before it is made: its tag says whose it is",
            ["kms:CreateKey"],
            EVERYTHING,
            {"StringEquals": {"aws:RequestedRegion": scope.settings.region, "aws:RequestTag/stack": scope.stack}},
        ),
        Grant(
            "TagKey",
            "with CreateKey only: a key that belongs to a stack can't become another's",
            ["kms:TagResource"],
            scope.arn("kms", "key/*"),
            {**scope.new, "Null": {"aws:ResourceTag/stack": "true"}},
        ),
        Grant(
            "ChangeKey",
            "rotation, description; and EKS encrypts in the name of who makes the cluster",
            [
                "kms:CreateGrant", "kms:DisableKeyRotation", "kms:EnableKeyRotation", "kms:TagResource",
                "kms:UntagResource", "kms:UpdateKeyDescription",
            ],
            scope.arn("kms", "key/*"),
            scope.own,
        ),
    ]  # fmt: skip


def remove(scope: Scope) -> list[Grant]:
    """Take it down."""
    return [
        Grant(
            "RemoveCluster",
            "cluster, nodes, add-ons, who may enter",
            [
                f"eks:{action}"
                for action in (
                    "DeleteAccessEntry",
                    "DeleteAddon",
                    "DeleteCluster",
                    "DeleteNodegroup",
                    "DeletePodIdentityAssociation",
                    "DisassociateAccessPolicy",
                )
            ],
            _in_cluster(scope),
        ),
        Grant("RemoveLogGroup", "EKS may make it once more while it goes", ["logs:DeleteLogGroup"], _logs(scope)),
        Grant(
            "RemoveKey",
            "after a week in which it can be taken back",
            ["kms:ScheduleKeyDeletion"],
            scope.arn("kms", "key/*"),
            scope.own,
        ),
    ]
