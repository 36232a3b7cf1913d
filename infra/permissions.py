"""What the roles of GitHub's workflows may do: every action by name, with why, on as little as AWS can name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.components.state import ALIAS
from infra.settings import PROJECT, AwsSettings, BootstrapSettings


@dataclass(frozen=True, slots=True)
class Grant:
    """One statement of a policy."""

    sid: str
    why: str
    actions: Sequence[str]
    resources: Sequence[str]
    condition: Mapping[str, Any] = field(default_factory=dict)

    def statement(self) -> dict[str, Any]:
        """As IAM reads it."""
        written: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": sorted(self.actions),
            "Resource": sorted(self.resources),
        }
        return written | ({"Condition": dict(self.condition)} if self.condition else {})


@dataclass(frozen=True, slots=True)
class Scope:
    """What a stack's roles may touch."""

    stack: str
    settings: AwsSettings
    home: BootstrapSettings


def document(grants: Sequence[Grant]) -> str:
    """A policy, without the spaces that IAM doesn't count."""
    statements = [grant.statement() for grant in grants]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def deploy_policies(scope: Scope) -> dict[str, str]:
    """Label -> document, of the role that makes and changes the stack."""
    return {"state": document([*state_read([scope]), *state_write(scope)])}


def destroy_policies(scope: Scope) -> dict[str, str]:
    """Label -> document, of the role that takes the stack down."""
    return {"state": document([*state_read([scope]), *state_write(scope)])}


def preview_policies(scopes: Sequence[Scope]) -> dict[str, str]:
    """Label -> document, of the role that looks at every stack and changes none."""
    return {"state": document(state_read(scopes))}


def boundary(scope: Scope) -> str:
    """The most that a role made by the stack can be given."""
    return document(state_read([scope]))


def state_read(scopes: Sequence[Scope]) -> list[Grant]:
    """To read the stacks' state and their secrets."""
    home = scopes[0].home
    bucket = f"arn:aws:s3:::{home.bucket}"
    key = f"arn:aws:kms:{home.region}:{home.account_id}:key/*"
    stacks = [scope.stack for scope in scopes]
    return [
        Grant(
            "ListState",
            "the engine finds stacks, their locks and their history by listing",
            ["s3:ListBucket"],
            [bucket],
            {"StringLike": {"s3:prefix": [".pulumi/*", ""]}},
        ),
        Grant(
            "ReadState",
            "the state itself, and the mark of the backend's version",
            ["s3:GetObject"],
            [f"{bucket}/.pulumi/meta.yaml", *(f"{bucket}/{path}" for stack in stacks for path in state_paths(stack))],
        ),
        Grant(
            "ReadEncryptedState",
            "S3 decrypts with the key in the caller's name",
            ["kms:Decrypt"],
            [key],
            {
                "ForAnyValue:StringEquals": {"kms:ResourceAliases": ALIAS},
                "StringEquals": {"kms:ViaService": f"s3.{home.region}.amazonaws.com"},
            },
        ),
        Grant(
            "ReadSecretsOfTheStack",
            "Pulumi decrypts the stack's secrets; the key's context tells the stacks apart",
            ["kms:Decrypt"],
            [key],
            {
                "ForAnyValue:StringEquals": {"kms:ResourceAliases": ALIAS},
                "StringEquals": {"kms:EncryptionContext:stack": stacks},
            },
        ),
    ]


def state_write(scope: Scope) -> list[Grant]:
    """To write the stack's state; another stack's can't be touched."""
    home = scope.home
    bucket = f"arn:aws:s3:::{home.bucket}"
    return [
        Grant(
            "WriteState",
            "state, locks, history and backups of this stack",
            ["s3:PutObject", "s3:DeleteObject"],
            [f"{bucket}/{path}" for path in state_paths(scope.stack)],
        ),
        Grant(
            "WriteEncryptedState",
            "S3 encrypts with the key in the caller's name",
            ["kms:GenerateDataKey"],
            [f"arn:aws:kms:{home.region}:{home.account_id}:key/*"],
            {
                "ForAnyValue:StringEquals": {"kms:ResourceAliases": ALIAS},
                "StringEquals": {"kms:ViaService": f"s3.{home.region}.amazonaws.com"},
            },
        ),
    ]


def state_paths(stack: str) -> list[str]:
    """Where Pulumi keeps a stack in the bucket (pkg/backend/diy)."""
    return [
        f".pulumi/stacks/{PROJECT}/{stack}.json",
        f".pulumi/stacks/{PROJECT}/{stack}.json.*",
        f".pulumi/history/{PROJECT}/{stack}/*",
        f".pulumi/backups/{PROJECT}/{stack}/*",
        f".pulumi/locks/organization/{PROJECT}/{stack}/*",
    ]
