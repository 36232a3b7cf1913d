"""IAM: the stack's own roles, all under the stack's path, all with the permissions boundary."""

from infra.permissions.grant import EVERYTHING, Grant, Scope

PASSED_TO = ("ec2.amazonaws.com", "eks.amazonaws.com", "pods.eks.amazonaws.com", "vpc-flow-logs.amazonaws.com")
"""Services that may assume the stack's roles: EC2 (hosts, nodes, flow logs), EKS, and EKS Pod Identity."""
MANAGED = (
    "AmazonEC2ContainerRegistryPullOnly", "AmazonEKSClusterPolicy", "AmazonEKSWorkerNodeMinimalPolicy",
    "AmazonEKS_CNI_Policy", "AmazonSSMManagedInstanceCore",
)  # fmt: skip
"""AWS's managed policies that are attached to the stack's roles."""
LINKED = ("autoscaling", "eks", "eks-nodegroup", "elasticloadbalancing")
"""Services that create a service-linked role at their first use in an account."""


def read(scope: Scope) -> list[Grant]:
    """Reading the stack's roles."""
    return [
        Grant(
            "SeeRoles",
            "the stack's roles and their permissions",
            ["iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole",
             "iam:ListRolePolicies", "iam:ListRoleTags"],
            [scope.roles],
        ),
        Grant(
            "SeeProfiles",
            "the instance profiles of the hosts",
            ["iam:GetInstanceProfile", "iam:ListInstanceProfileTags"],
            [scope.profiles],
        ),
        Grant(
            "FindLeft",
            "`atlas destroy` searches roles and buckets by path and name; lists have no finer resource",
            ["iam:ListInstanceProfiles", "iam:ListOpenIDConnectProviders", "iam:ListRoles", "s3:ListAllMyBuckets"],
            EVERYTHING,
        ),
        Grant(
            "FindLeftProvider",
            "whether an identity provider belongs to the stack",
            ["iam:ListOpenIDConnectProviderTags"],
            [f"arn:aws:iam::{scope.home.account_id}:oidc-provider/*"],
        ),
    ]  # fmt: skip


def change(scope: Scope) -> list[Grant]:
    """Creating and changing the stack's roles, always with the permissions boundary."""
    bounded = {"StringEquals": {"iam:PermissionsBoundary": scope.boundary}}
    managed = [f"arn:aws:iam::aws:policy/{name}" for name in MANAGED]
    return [
        Grant(
            "MakeBoundedRoles",
            "roles can only be created and changed with the permissions boundary",
            ["iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"],
            [scope.roles],
            bounded,
        ),
        Grant(
            "AttachKnownPolicies",
            "only those managed policies of AWS that the program uses",
            ["iam:AttachRolePolicy"],
            [scope.roles],
            {**bounded, "ArnEquals": {"iam:PolicyARN": managed}},
        ),
        Grant(
            "ChangeRoles",
            "tags, description, and the service that may assume the role",
            ["iam:TagRole", "iam:UntagRole", "iam:UpdateAssumeRolePolicy", "iam:UpdateRole",
             "iam:UpdateRoleDescription"],
            [scope.roles],
        ),
        Grant(
            "ChangeProfiles",
            "hosts get their roles through instance profiles",
            ["iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:TagInstanceProfile",
             "iam:UntagInstanceProfile"],
            [scope.profiles],
        ),
        Grant(
            "PassRoles",
            "the stack's roles, only to the services that use them",
            ["iam:PassRole"],
            [scope.roles],
            {"StringEquals": {"iam:PassedToService": list(PASSED_TO)}},
        ),
        Grant(
            "LinkServices",
            "the first cluster of an account needs these roles; AWS defines their permissions",
            ["iam:CreateServiceLinkedRole"],
            [
                f"arn:aws:iam::{scope.home.account_id}:role/aws-service-role/{service}.amazonaws.com/*"
                for service in LINKED
            ],
            {"StringEquals": {"iam:AWSServiceName": [f"{service}.amazonaws.com" for service in LINKED]}},
        ),
        Grant(
            "SeeLinkedRole",
            "EKS checks this role with the caller's permissions",
            ["iam:GetRole"],
            [f"arn:aws:iam::{scope.home.account_id}:role/aws-service-role/eks-nodegroup.amazonaws.com/*"],
        ),
    ]  # fmt: skip


def remove(scope: Scope) -> list[Grant]:
    """Deleting the stack's roles."""
    return [
        Grant(
            "RemoveRoles",
            "roles and their policies",
            ["iam:DeleteRole", "iam:DeleteRolePolicy", "iam:DetachRolePolicy"],
            [scope.roles],
        ),
        Grant(
            "RemoveProfiles",
            "the instance profiles of the hosts",
            ["iam:DeleteInstanceProfile", "iam:RemoveRoleFromInstanceProfile"],
            [scope.profiles],
        ),
    ]
