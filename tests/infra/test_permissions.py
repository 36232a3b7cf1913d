"""What GitHub's roles may do: enough for the AWS program, nothing of another stack, no way to more."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from moto.iam.aws_managed_policies import aws_managed_policies_data

from infra.permissions import cluster, data, identity, network, state
from infra.permissions.boundary import WITHHELD, boundary
from infra.permissions.grant import EVERYTHING, Scope, document
from infra.permissions.identity import MANAGED
from infra.permissions.roles import deploy_policies, destroy_policies, preview_policies
from infra.settings import AwsSettings, BootstrapSettings, load_settings
from tests.infra.support.aws import BASE, up
from tests.infra.support.iam import allows, entries_of, listed, problems, statements
from tests.infra.support.needed import MAKE, READ, REMOVE

HOME = BootstrapSettings(environment="bootstrap", account_id="123456789012", repository="repo:owner/name")


def scope(stack: str, **changed: str) -> Scope:
    settings = load_settings({f"atlas:{key}": value for key, value in {**BASE, **changed}.items()})
    assert isinstance(settings, AwsSettings)
    return Scope(stack, settings, HOME)


DEV = scope("dev")
PROD = scope("production-of-europe", disposable="false", clusterName="a" * 60, region="ap-southeast-2")
ROLES: Mapping[str, Mapping[str, str]] = {
    "preview": preview_policies([DEV, PROD, DEV, PROD]),
    "deploy": deploy_policies(DEV, []),
    "deploy-kept": deploy_policies(PROD, [DEV]),
    "destroy": destroy_policies(DEV),
    "boundary": {"boundary": document(boundary(DEV))},
    "boundary-kept": {"boundary": document(boundary(PROD))},
}
DEPLOY = statements(*ROLES["deploy"].values())
DESTROY = statements(*ROLES["destroy"].values())
PREVIEW = statements(*preview_policies([DEV]).values())
BOUNDARY = statements(*ROLES["boundary"].values())


@pytest.mark.parametrize("role", ROLES)
def test_policies_name_real_actions_on_the_right_resources(role: str) -> None:
    found = [
        (statement["Sid"], problem)
        for statement in statements(*ROLES[role].values())
        for problem in problems(statement)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"Action": "s3:GetObjekt"}, "no such action"),
        ({"Action": "s3:*"}, "a wildcard action"),
        ({"Resource": "*"}, "on everything"),
        ({"Resource": "arn:aws:sns:us-east-1:123456789012:topic"}, "is a resource of it"),
        ({"Resource": ["arn:aws:s3:::bucket/key", "arn:aws:s3:::bucket"]}, "arn:aws:s3:::bucket: of no action"),
        ({"Condition": {"StringEquals": {"s3:nonsense": "x"}}}, "no condition s3:nonsense"),
        (
            {
                "Action": "ec2:DescribeVpcs",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:ResourceTag/stack": "x"}},
            },
            "no condition aws:ResourceTag/stack",
        ),
    ],
)
def test_lint_catches(change: dict[str, Any], told: str) -> None:
    good = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/key"}
    assert list(problems(good)) == []
    assert any(told in problem for problem in problems(good | change))


@pytest.mark.parametrize("role", ROLES)
def test_policies_are_within_the_limits_of_iam(role: str) -> None:
    # iam-quotas: 6144 characters a managed policy without white space, ten of them a role.
    assert {label: len(text) for label, text in ROLES[role].items() if len(text) > 6144} == {}
    assert len(ROLES[role]) <= 10


def test_preview_role_of_as_many_stacks_as_can_be_has_no_more_policies_than_a_role_can_have() -> None:
    stacks = [scope(name) for name in ("a", "b", "c", "d")]
    assert len(preview_policies(stacks)) <= 10


def test_every_grant_says_why_and_what_is_on_everything_why_it_must_be() -> None:
    grants = [*state.read([DEV]), *state.write(DEV), *network.sweep(DEV), *data.copy([DEV]), *boundary(DEV)]
    for module in (network, cluster, data, identity):
        grants += [*module.read(DEV), *module.change(DEV), *module.remove(DEV)]
    assert len(grants) > 60
    assert [grant.sid for grant in grants if len(grant.why.split()) < 3] == []
    excuses = ("no finer resource", "no resource", "no name before it is made")
    broad = [grant for grant in grants if tuple(grant.resources) == EVERYTHING]
    assert [grant.sid for grant in broad if not any(excuse in grant.why for excuse in excuses)] == []


@pytest.mark.parametrize("variant", ["base", "full"])
@pytest.mark.slow
def test_deploy_role_may_do_what_the_program_needs(variant: str) -> None:
    kinds = {call.token.removeprefix("aws:") for call in up(variant).world.existing().values() if "aws:" in call.token}
    assert len(kinds) > 35
    allowed = {action for statement in DEPLOY for action in listed(statement["Action"])}
    wanted = {action for kind in kinds for table in (MAKE, READ, REMOVE) for action in table[kind]}
    assert sorted(wanted - allowed) == []


def test_deploy_role_may_check_the_account_before_it_makes_anything() -> None:
    quota = "arn:aws:servicequotas:us-east-1:123456789012:ec2/L-1216C47A"
    assert allows(DEPLOY, "servicequotas:GetServiceQuota", quota)
    assert allows(DEPLOY, "freetier:GetAccountPlanState", "*")
    for action in ("AvailabilityZones", "InstanceTypeOfferings", "InstanceTypes", "Instances"):
        assert allows(DEPLOY, f"ec2:Describe{action}", "*", aws__RequestedRegion="us-east-1")


@pytest.mark.slow
def test_destroy_role_may_take_down_what_the_program_makes_and_make_nothing() -> None:
    kinds = {call.token.removeprefix("aws:") for call in up("full").world.existing().values() if "aws:" in call.token}
    allowed = {action for statement in DESTROY for action in listed(statement["Action"])}
    wanted = {action for kind in kinds for table in (READ, REMOVE) for action in table[kind]}
    assert sorted(wanted - allowed) == []
    makers = ("Create", "Run", "Allocate", "PassRole", "AttachRole", "PutRole", "Associate", "Authorize", "PutImage")
    assert [action for action in sorted(allowed) if action.split(":")[1].startswith(makers)] == []


def test_preview_role_may_look_at_what_the_program_makes_and_change_nothing() -> None:
    allowed = {action for statement in PREVIEW for action in listed(statement["Action"])}
    wanted = {action for actions in READ.values() for action in actions}
    assert sorted(wanted - allowed) == []
    changing = {
        action
        for action in allowed
        if {entry["access_level"] for entry in entries_of(action)} & {"Write", "Permissions management", "Tagging"}
    }
    assert changing == {"kms:Decrypt"}  # AWS counts it as writing
    assert "secretsmanager:GetSecretValue" not in allowed


BUCKET = "arn:aws:s3:::atlas-dev-data-bucket-0123456"
STATE = "arn:aws:s3:::atlas-state-123456789012-us-east-1/.pulumi"
ROLE = "arn:aws:iam::123456789012:role/atlas/dev/atlas-dev-node-0123456"
VOLUME = "arn:aws:ec2:us-east-1:123456789012:volume/vol-1"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        ("s3:DeleteBucket", BUCKET, {}),
        ("s3:PutObject", f"{STATE}/stacks/atlas/dev.json", {}),
        ("s3:DeleteObject", f"{STATE}/locks/organization/atlas/dev/1.json", {}),
        ("iam:CreateRole", ROLE, {"iam__PermissionsBoundary": DEV.boundary}),
        ("iam:PassRole", ROLE, {"iam__PassedToService": "eks.amazonaws.com"}),
        ("ec2:DeleteVolume", VOLUME, {"aws__ResourceTag_slash_stack": "dev"}),
        ("ec2:CreateVolume", VOLUME, {"aws__RequestTag_slash_stack": "dev"}),
        ("kms:ScheduleKeyDeletion", KEY, {"aws__ResourceTag_slash_stack": "dev"}),
        ("kms:TagResource", KEY, {"aws__RequestTag_slash_stack": "dev"}),
        ("kms:Decrypt", KEY, {"kms__ResourceAliases": "alias/atlas-state", "kms__EncryptionContext__stack": "dev"}),
    ],
)
def test_deploy_role_may(action: str, resource: str, context: dict[str, str]) -> None:
    assert allows(DEPLOY, action, resource, **context)


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        # another stack
        ("s3:DeleteBucket", BUCKET.replace("dev", "prod"), {}),
        ("s3:GetObject", f"{STATE}/stacks/atlas/prod.json", {}),
        ("s3:PutObject", f"{STATE}/stacks/atlas/prod.json", {}),
        ("s3:PutObject", f"{STATE}/stacks/atlas/bootstrap.json", {}),
        ("s3:PutObject", f"{STATE}/meta.yaml", {}),
        ("ec2:DeleteVolume", VOLUME, {"aws__ResourceTag_slash_stack": "prod"}),
        ("ec2:DeleteVolume", VOLUME, {}),
        ("ec2:CreateVolume", VOLUME, {"aws__RequestTag_slash_stack": "prod"}),
        ("ec2:CreateTags", VOLUME, {"aws__RequestTag_slash_stack": "dev", "aws__ResourceTag_slash_stack": "prod"}),
        ("ec2:CreateTags", VOLUME, {"aws__RequestTag_slash_stack": "dev"}),
        ("ec2:DescribeVpcs", "*", {"aws__RequestedRegion": "eu-west-1"}),
        ("kms:ScheduleKeyDeletion", KEY, {"aws__ResourceTag_slash_stack": "prod"}),
        ("kms:TagResource", KEY, {"aws__RequestTag_slash_stack": "dev", "aws__ResourceTag_slash_stack": "bootstrap"}),
        ("kms:Decrypt", KEY, {"kms__ResourceAliases": "alias/atlas-state", "kms__EncryptionContext__stack": "prod"}),
        ("kms:Decrypt", KEY, {"kms__ResourceAliases": "alias/other", "kms__EncryptionContext__stack": "dev"}),
        # keys in use, and keys of others that have no tags
        ("kms:TagResource", KEY, {"aws__RequestTag_slash_stack": "dev", "kms__ResourceAliases": "alias/other"}),
        ("kms:DescribeKey", KEY, {"kms__ResourceAliases": "alias/other"}),
        ("kms:CreateGrant", KEY, {"kms__GrantIsForAWSResource": "true", "kms__ResourceAliases": "alias/other"}),
        ("kms:CreateGrant", KEY, {"kms__GrantIsForAWSResource": "false"}),
        ("kms:CreateGrant", KEY, {}),
        ("kms:Decrypt", KEY, {}),
        # more rights
        ("iam:CreateRole", ROLE, {}),
        ("iam:CreateRole", ROLE, {"iam__PermissionsBoundary": "arn:aws:iam::123456789012:policy/other"}),
        ("iam:CreateRole", ROLE.replace("atlas/dev/", ""), {"iam__PermissionsBoundary": DEV.boundary}),
        ("iam:PutRolePolicy", ROLE, {}),
        ("iam:PutRolePolicy", "arn:aws:iam::123456789012:role/atlas-deploy-dev", {}),
        (
            "iam:AttachRolePolicy",
            ROLE,
            {
                "iam__PermissionsBoundary": DEV.boundary,
                "iam__PolicyARN": "arn:aws:iam::aws:policy/AdministratorAccess",
            },
        ),
        ("iam:UpdateAssumeRolePolicy", "arn:aws:iam::123456789012:role/atlas-deploy-dev", {}),
        ("iam:DeleteRolePermissionsBoundary", ROLE, {}),
        ("iam:CreatePolicyVersion", DEV.boundary, {}),
        ("iam:PassRole", ROLE, {"iam__PassedToService": "lambda.amazonaws.com"}),
        (
            "iam:PassRole",
            "arn:aws:iam::123456789012:role/atlas-deploy-dev",
            {"iam__PassedToService": "ec2.amazonaws.com"},
        ),
        ("sts:AssumeRole", ROLE, {}),
    ],
)
def test_deploy_role_may_not(action: str, resource: str, context: dict[str, str]) -> None:
    assert not allows(DEPLOY, action, resource, **context)


def test_deploy_role_of_a_stack_that_is_kept_deletes_no_data_and_reads_what_is_promoted() -> None:
    kept = scope("prod", disposable="false")
    given = statements(*deploy_policies(kept, [DEV]).values())
    bucket = "arn:aws:s3:::atlas-prod-{}-bucket-1"
    assert not allows(given, "s3:DeleteBucket", bucket.format("data"))
    assert not allows(given, "s3:DeleteObjectVersion", f"{bucket.format('data')}/dvc/1")
    assert allows(given, "s3:DeleteBucket", bucket.format("config"))
    assert not allows(given, "ec2:DeleteVolume", VOLUME, aws__ResourceTag_slash_stack="prod")
    repository = "arn:aws:ecr:us-east-1:123456789012:repository/atlas-{}/flask-app"
    assert not allows(given, "ecr:DeleteRepository", repository.format("prod"))
    assert allows(given, "ecr:BatchGetImage", repository.format("dev"))
    assert not allows(given, "ecr:PutImage", repository.format("dev"))
    assert allows(given, "s3:GetObject", f"{STATE}/stacks/atlas/dev.json")
    assert not allows(given, "s3:PutObject", f"{STATE}/stacks/atlas/dev.json")
    assert not allows(DEPLOY, "ecr:BatchGetImage", repository.format("prod"))


@pytest.mark.slow
def test_boundary_leaves_the_roles_what_awss_own_policies_give_them_and_says_what_it_withholds() -> None:
    documents = json.loads(aws_managed_policies_data)
    attached = {
        call.inputs["policyArn"].rsplit("/", 1)[-1]
        for call in up("full").world.existing().values()
        if call.token == "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
    }
    assert attached == set(MANAGED)
    given = {
        action
        for name in attached
        for statement in documents[name]["Document"]["Statement"]
        for action in listed(statement["Action"])
    }
    bounded = {action for statement in BOUNDARY for action in listed(statement["Action"])}
    assert given - bounded == WITHHELD.keys()


@pytest.mark.parametrize("variant", ["base", "full"])
@pytest.mark.slow
def test_boundary_leaves_the_roles_what_the_program_gives_them(variant: str) -> None:
    checked = 0
    for call in up(variant).world.existing().values():
        if call.token == "aws:iam/rolePolicy:RolePolicy":
            for statement in json.loads(call.inputs["policy"])["Statement"]:
                for action in listed(statement["Action"]):
                    for resource in listed(statement["Resource"]):
                        allowed = allows(
                            BOUNDARY, action, resource.replace("*", "x"), aws__ResourceTag_slash_stack="dev"
                        )
                        assert allowed, (call.name, action, resource)
                        checked += 1
    assert checked >= 8


@pytest.mark.parametrize("action", ["kms:Decrypt", "kms:GenerateDataKey"])
@pytest.mark.parametrize("service", ["secretsmanager", "sns"])
def test_boundary_lets_hosts_use_the_keys_of_services_only_through_these(action: str, service: str) -> None:
    # The key's policy names everybody in the account, so that the boundary alone decides; AWS's key has no tags.
    key = {"aws__RequestedRegion": "us-east-1", "kms__ResourceAliases": f"alias/aws/{service}"}

    def through(via: str) -> bool:
        return allows(BOUNDARY, action, KEY, **key, kms__ViaService=f"{via}.amazonaws.com")

    assert through(f"{service}.us-east-1")
    assert not through(f"{service}.eu-west-1")
    assert not through("s3.us-east-1")


@pytest.mark.parametrize(
    "action", ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:ListGrants"]
)
def test_boundary_lets_the_clusters_role_use_its_own_key(action: str) -> None:
    assert allows(BOUNDARY, action, KEY, aws__ResourceTag_slash_stack="dev")
    # The cluster is created before KMS authorises by the tags of its new key.
    assert allows(BOUNDARY, action, KEY)
    for other in ("bootstrap", "prod"):
        assert not allows(BOUNDARY, action, KEY, aws__ResourceTag_slash_stack=other)
    assert not allows(BOUNDARY, action, KEY, kms__ResourceAliases="alias/other")


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("secretsmanager:GetSecretValue", "arn:aws:secretsmanager:us-east-1:123456789012:secret:atlas-prod/x"),
        ("s3:GetObject", f"{STATE}/stacks/atlas/dev.json"),
        ("s3:GetObject", f"{BUCKET.replace('dev', 'prod')}/service/x"),
        ("iam:CreateRole", ROLE),
        ("iam:PassRole", ROLE),
        ("sts:AssumeRole", ROLE),
        ("kms:CreateGrant", KEY),
        ("ec2:RunInstances", "arn:aws:ec2:us-east-1:123456789012:instance/*"),
    ],
)
def test_boundary_ends(action: str, resource: str) -> None:
    assert not allows(BOUNDARY, action, resource, aws__RequestedRegion="us-east-1")


def test_destroy_role_may_do_what_the_sweep_and_the_look_ask_of_aws() -> None:
    account = "arn:aws:{}:us-east-1:123456789012:{}"
    cluster = {"aws__ResourceTag_slash_kubernetes.io_slash_cluster_slash_flask-app-cluster": "owned"}
    assert allows(DESTROY, "ec2:DeleteSecurityGroup", account.format("ec2", "security-group/sg-1"), **cluster)
    assert not allows(DESTROY, "ec2:DeleteSecurityGroup", account.format("ec2", "security-group/sg-1"))
    for balancer in ("loadbalancer/a-classic-one", "loadbalancer/net/a/1"):
        arn = account.format("elasticloadbalancing", balancer)
        assert allows(DESTROY, "elasticloadbalancing:DeleteLoadBalancer", arn, **cluster)
        assert not allows(DESTROY, "elasticloadbalancing:DeleteLoadBalancer", arn)
    for action in ("iam:ListRoles", "s3:ListAllMyBuckets", "iam:ListOpenIDConnectProviders"):
        assert allows(DESTROY, action, "*")
    for action in ("ec2:DescribeSnapshots", "secretsmanager:ListSecrets", "tag:GetResources"):
        assert allows(DESTROY, action, "*", aws__RequestedRegion="us-east-1")
    assert allows(DESTROY, "ecr:DescribeRepositories", account.format("ecr", "repository/another"))
    assert allows(DESTROY, "s3:ListBucketVersions", BUCKET)
