"""EKS, the key of its secrets, its control plane's logs. Every EKS ARN contains the cluster's name."""

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
    """Reading the cluster through EKS; access to Kubernetes objects is granted by access entries."""
    return [
        Grant(
            "SeeCluster",
            "the cluster and its parts in EKS",
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
            "lists of add-on versions, clusters and log groups have no finer resource",
            ["eks:DescribeAddonVersions", "eks:ListClusters", "logs:DescribeLogGroups"],
            EVERYTHING,
            scope.here,
        ),
        Grant("SeeLogTags", "tags of the control plane's log group", ["logs:ListTagsForResource"], _logs(scope)),
        Grant(
            "SeeKey",
            "the key of the cluster's secrets",
            ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags"],
            scope.arn("kms", "key/*"),
            scope.own,
        ),
    ]


def change(scope: Scope) -> list[Grant]:
    """Creating and changing the cluster."""
    return [
        Grant(
            "MakeCluster",
            "AWS has no resource for this action, so the condition requires the stack's tag",
            ["eks:CreateCluster"],
            EVERYTHING,
            {"StringEquals": {"aws:RequestedRegion": scope.settings.region, "aws:RequestTag/stack": scope.stack}},
        ),
        Grant(
            "ChangeCluster",
            "cluster, nodes, add-ons, access entries, the pods' identity",
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
            "it is created before the cluster, so that its logs have a retention period",
            [
                "logs:CreateLogGroup", "logs:DeleteRetentionPolicy", "logs:PutRetentionPolicy", "logs:TagResource",
                "logs:UntagResource",
            ],
            _logs(scope),
        ),
        Grant(
            "MakeKey",
            "a key has no name before it is made, so the condition requires the stack's tag",
            ["kms:CreateKey"],
            EVERYTHING,
            {"StringEquals": {"aws:RequestedRegion": scope.settings.region, "aws:RequestTag/stack": scope.stack}},
        ),
        Grant(
            "TagKey",
            "only keys without a stack's tag can be tagged: a key of a stack can't be moved to another stack",
            ["kms:TagResource"],
            scope.arn("kms", "key/*"),
            {**scope.new, "Null": {"aws:ResourceTag/stack": "true"}},
        ),
        Grant(
            "ChangeKey",
            "rotation and description; EKS creates its grant with the permissions of the cluster's creator",
            [
                "kms:CreateGrant", "kms:DisableKeyRotation", "kms:EnableKeyRotation", "kms:TagResource",
                "kms:UntagResource", "kms:UpdateKeyDescription",
            ],
            scope.arn("kms", "key/*"),
            scope.own,
        ),
    ]  # fmt: skip


def remove(scope: Scope) -> list[Grant]:
    """Deleting the cluster."""
    return [
        Grant(
            "RemoveCluster",
            "cluster, nodes, add-ons, access entries",
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
        Grant("RemoveLogGroup", "EKS may create it again during its deletion", ["logs:DeleteLogGroup"], _logs(scope)),
        Grant(
            "RemoveKey",
            "the deletion can be cancelled for a week",
            ["kms:ScheduleKeyDeletion"],
            scope.arn("kms", "key/*"),
            scope.own,
        ),
    ]
