"""A role that jobs of GitHub workflows assume with their OIDC token: no stored keys, and only for the named jobs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.trust import policy_document

GITHUB = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"


def provider_arn(account: str) -> str:
    """The ARN of GitHub's identity provider; an account can have only one for a URL."""
    return f"arn:aws:iam::{account}:oidc-provider/{GITHUB}"


@dataclass(frozen=True, slots=True)
class GithubRoleArgs:
    """The inputs of the component GithubRole."""

    description: str
    subjects: Sequence[str]
    """The full subjects of the trusted tokens, without wildcards."""
    provider_arn: pulumi.Input[str]
    policies: Mapping[str, str]
    """Its permissions: label -> policy document; each becomes a managed policy."""
    session_hours: int
    tags: Mapping[str, str]


class GithubRole(pulumi.ComponentResource):
    """Role and policies. Their names are fixed, because workflows and stack files contain them.

    Outputs:
        arn: the role's.
    """

    arn: pulumi.Output[str]

    def __init__(self, name: str, args: GithubRoleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:GithubRole", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)

        role = aws.iam.Role(
            name,
            name=name,
            description=args.description,
            assume_role_policy=pulumi.Output.from_input(args.provider_arn).apply(
                lambda arn: trusted_subjects(arn, args.subjects)
            ),
            max_session_duration=args.session_hours * 3600,
            tags=args.tags,
            opts=here,
        )
        for label, document in args.policies.items():
            policy = aws.iam.Policy(
                f"{name}-{label}", name=f"{name}-{label}", policy=document, tags=args.tags, opts=here
            )
            aws.iam.RolePolicyAttachment(f"{name}-{label}", role=role.name, policy_arn=policy.arn, opts=here)

        self.arn = role.arn
        self.register_outputs({"arn": self.arn})


def trusted_subjects(provider_arn: str, subjects: Sequence[str]) -> str:
    """The trust policy: only tokens for AWS with exactly these subjects."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": provider_arn},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{GITHUB}:aud": AUDIENCE, f"{GITHUB}:sub": list(subjects)}},
    }
    return json.dumps(policy_document(statement))
