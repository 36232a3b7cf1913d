"""EKS, the stack's keys, its log groups. Every EKS ARN contains the cluster's name."""

from infra.names import control_plane_logs, flow_logs
from infra.permissions.grant import EVERYTHING, Grant, Scope


def _in_cluster(scope: Scope) -> list[str]:
    name = scope.settings.cluster_name
    return scope.arn(
        "eks", f"cluster/{name}", f"nodegroup/{name}/*/*", f"addon/{name}/*/*", f"access-entry/{name}/*/*/*/*",
        f"podidentityassociation/{name}/*",
    )  # fmt: skip


def _logs(scope: Scope) -> list[str]:
    groups = (control_plane_logs(scope.settings.cluster_name), flow_logs(scope.stack))
    return scope.arn("logs", *(f"log-group:{group}{streams}" for group in groups for streams in ("", ":*")))


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
        Grant("SeeLogTags", "tags of the log groups", ["logs:ListTagsForResource"], _logs(scope)),
        Grant(
            "SeeKey",
            "the keys of the cluster's secrets and of the alerts",
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
            "the stack creates them, so that its logs have a retention period",
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
            "a new key gets the stack's tag; a key of a stack, or a key in use, can't become another stack's",
            ["kms:TagResource"],
            scope.arn("kms", "key/*"),
            {**scope.new, **scope.new_key},
        ),
        Grant(
            "ChangeNewKey",
            "for some minutes KMS authorises as if a new key had no tags; the key must get its rotation, and be read",
            ["kms:DescribeKey", "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus",
             "kms:ListResourceTags"],
            scope.arn("kms", "key/*"),
            scope.new_key,
        ),
        Grant(
            "LendNewKey",
            "EKS creates its grant with the permissions of the cluster's creator; only AWS services can use this",
            ["kms:CreateGrant"],
            scope.arn("kms", "key/*"),
            {**scope.new_key, "Bool": {"kms:GrantIsForAWSResource": "true"}},
        ),
        Grant(
            "ChangeKey",
            "rotation, policy and description; EKS creates its grant with the permissions of the cluster's creator",
            [
                "kms:CreateGrant", "kms:DisableKeyRotation", "kms:EnableKeyRotation", "kms:PutKeyPolicy",
                "kms:TagResource", "kms:UntagResource", "kms:UpdateKeyDescription",
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
