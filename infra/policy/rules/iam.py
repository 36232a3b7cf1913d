"""Rules about AWS permissions: no wildcards, no static keys, trust in named principals only."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from infra.policy.rule import Resource, allowed, items, rule

GRANTS = (
    "aws:iam/policy:Policy",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/userPolicy:UserPolicy",
    "aws:iam/groupPolicy:GroupPolicy",
)
ROLE = "aws:iam/role:Role"
NAMED_ROLE = re.compile(r":role/[^*?]")
"""A role's ARN whose name or path doesn't begin with a wildcard."""
TOO_MUCH = ("AdministratorAccess", "IAMFullAccess", "PowerUserAccess")
CREDENTIALS = ("aws:iam/accessKey:AccessKey", "aws:iam/user:User", "aws:iam/userLoginProfile:UserLoginProfile")


def documents(resource: Resource) -> Iterator[object]:
    """The policy documents of the resource."""
    if resource.kind == ROLE:
        yield from (inline.get("policy") for inline in items(resource.inputs.get("inlinePolicies")))
    else:
        yield resource.inputs.get("policy")


@rule(*GRANTS, ROLE, ids=("CKV_AWS_62", "CKV_AWS_63", "CKV2_AWS_40", "CIS 1.16"))
def iam_actions_named(resource: Resource) -> Iterator[str]:
    """Every granted action is named in full."""
    for document in documents(resource):
        for statement in allowed(document):
            for action in items(statement.get("Action")):
                if "*" in action:
                    yield f"grants {action}: name the actions"
            if statement.get("NotAction"):
                yield "grants all actions except some (NotAction): name the actions"


@rule(*GRANTS, ROLE, ids=("CKV_AWS_110", "CKV_AWS_286"))
def iam_pass_role_named(resource: Resource) -> Iterator[str]:
    """iam:PassRole is granted only for named roles, or for roles under a named path."""
    for document in documents(resource):
        for statement in allowed(document):
            if not any(fnmatchcase("iam:passrole", str(one).lower()) for one in items(statement.get("Action"))):
                continue
            for target in items(statement.get("Resource")):
                if not NAMED_ROLE.search(target):
                    yield f"grants iam:PassRole on {target}: name the roles"
            if statement.get("NotResource"):
                yield "grants iam:PassRole on all roles except some (NotResource): name the roles"


@rule(
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "aws:iam/policyAttachment:PolicyAttachment",
    "aws:iam/userPolicyAttachment:UserPolicyAttachment",
    "aws:iam/groupPolicyAttachment:GroupPolicyAttachment",
    ROLE,
    ids=("CKV_AWS_274", "CKV2_AWS_56"),
)
def iam_no_administrators(resource: Resource) -> Iterator[str]:
    """AWS's own policies for administrators aren't attached to anything."""
    given = [resource.inputs["policyArn"]] if "policyArn" in resource.inputs else []
    for arn in [*given, *items(resource.inputs.get("managedPolicyArns"))]:
        if str(arn).rsplit("/", 1)[-1] in TOO_MUCH:
            yield f"attaches {arn}: grant only the actions that are needed"


@rule(ROLE, ids=("CKV_AWS_60", "CKV_AWS_61"))
def iam_trust_named(resource: Resource) -> Iterator[str]:
    """A role names the principals that may assume it."""
    for statement in allowed(resource.inputs.get("assumeRolePolicy")):
        principal = statement.get("Principal")
        named = {} if isinstance(principal, str) else (principal or {})
        whom = [principal] if isinstance(principal, str) else [one for key in named for one in items(named[key])]
        if not whom or "*" in whom or "NotPrincipal" in statement:
            yield "everyone may assume the role: name the service or the account's role"


@rule(ROLE, ids=("CKV_AWS_358",))
def iam_web_tokens_exact(resource: Resource) -> Iterator[str]:
    """A role for workflows requires the exact audience and subject of a token."""
    for statement in allowed(resource.inputs.get("assumeRolePolicy")):
        if "sts:AssumeRoleWithWebIdentity" not in items(statement.get("Action")):
            continue
        exact = (statement.get("Condition") or {}).get("StringEquals") or {}
        for claim in ("aud", "sub"):
            values = [value for key in exact if key.endswith(f":{claim}") for value in items(exact[key])]
            if not values or any("*" in value for value in values):
                yield f"needs StringEquals on the token's {claim}, without a wildcard"


@rule(*CREDENTIALS, "pulumi:providers:aws", ids=("CKV_AWS_41", "CKV_AWS_273"))
def no_static_keys(resource: Resource) -> Iterator[str]:
    """There are no IAM users, no access keys, and no keys in a provider's settings: credentials of roles expire."""
    if resource.kind in CREDENTIALS:
        yield f"{resource.kind.rsplit(':', 1)[-1]}: use a role"
    else:
        for key in ("accessKey", "secretKey", "token"):
            if resource.inputs.get(key):
                yield f"{key} is set: use a role or a profile"
