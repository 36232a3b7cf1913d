"""IAM: the stack's own roles, all under one path, none beyond the boundary."""

from infra.permissions.grant import EVERYTHING, Grant, Scope

PASSED_TO = ("ec2.amazonaws.com", "eks.amazonaws.com", "pods.eks.amazonaws.com")
"""Services that get the stack's roles: hosts and nodes, the cluster, its pods."""
MANAGED = (
    "AmazonEC2ContainerRegistryPullOnly", "AmazonEKSClusterPolicy", "AmazonEKSWorkerNodeMinimalPolicy",
    "AmazonEKS_CNI_Policy", "AmazonSSMManagedInstanceCore",
)  # fmt: skip
"""AWS's policies that the stack's roles get."""
LINKED = ("autoscaling", "eks", "eks-nodegroup", "elasticloadbalancing")
"""Services that make a role of their own at their first use in an account."""


def read(scope: Scope) -> list[Grant]:
    """The stack's roles."""
    return [
        Grant(
            "SeeRoles",
            "the stack's roles and what they may do",
            ["iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole",
             "iam:ListRolePolicies", "iam:ListRoleTags"],
            [scope.roles],
        ),
        Grant(
            "SeeProfiles",
            "how hosts get theirs",
            ["iam:GetInstanceProfile", "iam:ListInstanceProfileTags"],
            [scope.profiles],
        ),
        Grant(
            "FindLeft",
            "`atlas destroy` looks for roles and buckets by path and name; lists have no finer resource",
            ["iam:ListInstanceProfiles", "iam:ListOpenIDConnectProviders", "iam:ListRoles", "s3:ListAllMyBuckets"],
            EVERYTHING,
        ),
        Grant(
            "FindLeftProvider",
            "and whether an identity provider of a cluster is the stack's",
            ["iam:ListOpenIDConnectProviderTags"],
            [f"arn:aws:iam::{scope.home.account_id}:oidc-provider/*"],
        ),
    ]  # fmt: skip


def change(scope: Scope) -> list[Grant]:
    """Make the stack's roles; what they are given stays within the boundary."""
    bounded = {"StringEquals": {"iam:PermissionsBoundary": scope.boundary}}
    managed = [f"arn:aws:iam::aws:policy/{name}" for name in MANAGED]
    return [
        Grant(
            "MakeBoundedRoles",
            "a role without the boundary can't be made, nor given more than it",
            ["iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"],
            [scope.roles],
            bounded,
        ),
        Grant(
            "AttachKnownPolicies",
            "AWS's own, and only those that the program names",
            ["iam:AttachRolePolicy"],
            [scope.roles],
            {**bounded, "ArnEquals": {"iam:PolicyARN": managed}},
        ),
        Grant(
            "ChangeRoles",
            "tags, description, and which service takes it",
            ["iam:TagRole", "iam:UntagRole", "iam:UpdateAssumeRolePolicy", "iam:UpdateRole",
             "iam:UpdateRoleDescription"],
            [scope.roles],
        ),
        Grant(
            "ChangeProfiles",
            "how hosts get their roles",
            ["iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:TagInstanceProfile",
             "iam:UntagInstanceProfile"],
            [scope.profiles],
        ),
        Grant(
            "PassRoles",
            "the stack's roles, to the services that they are for",
            ["iam:PassRole"],
            [scope.roles],
            {"StringEquals": {"iam:PassedToService": list(PASSED_TO)}},
        ),
        Grant(
            "LinkServices",
            "the first cluster of an account; AWS fixes what these roles may do",
            ["iam:CreateServiceLinkedRole"],
            [
                f"arn:aws:iam::{scope.home.account_id}:role/aws-service-role/{service}.amazonaws.com/*"
                for service in LINKED
            ],
            {"StringEquals": {"iam:AWSServiceName": [f"{service}.amazonaws.com" for service in LINKED]}},
        ),
        Grant(
            "SeeLinkedRole",
            "EKS looks for it in the caller's name",
            ["iam:GetRole"],
            [f"arn:aws:iam::{scope.home.account_id}:role/aws-service-role/eks-nodegroup.amazonaws.com/*"],
        ),
    ]  # fmt: skip


def remove(scope: Scope) -> list[Grant]:
    """Delete the stack's roles."""
    return [
        Grant(
            "RemoveRoles",
            "with what they may do",
            ["iam:DeleteRole", "iam:DeleteRolePolicy", "iam:DetachRolePolicy"],
            [scope.roles],
        ),
        Grant(
            "RemoveProfiles",
            "and how hosts get them",
            ["iam:DeleteInstanceProfile", "iam:RemoveRoleFromInstanceProfile"],
            [scope.profiles],
        ),
    ]
