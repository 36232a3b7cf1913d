"""Pulumi's state and the stacks' secrets, in bootstrap's bucket and under its key."""

from collections.abc import Sequence
from typing import Any

from infra.components.state import ALIAS
from infra.names import PROJECT, STATE_LOCKS, STATE_STACKS
from infra.permissions.grant import Grant, Scope
from infra.settings import BootstrapSettings


def paths(stack: str) -> list[str]:
    """The stack's files in the state bucket (pulumi/pkg/backend/diy)."""
    return [
        f"{STATE_STACKS}/{stack}.json",
        f"{STATE_STACKS}/{stack}.json.*",
        f"{STATE_STACKS}/{stack}.pulumi-tags",
        f".pulumi/history/{PROJECT}/{stack}/*",
        f".pulumi/backups/{PROJECT}/{stack}/*",
        f"{STATE_LOCKS}/{stack}/*",
    ]


def read(scopes: Sequence[Scope]) -> list[Grant]:
    """Reading the state of these stacks and the secrets in it."""
    home = scopes[0].home
    bucket = f"arn:aws:s3:::{home.bucket}"
    stacks = [scope.stack for scope in scopes]
    return [
        Grant(
            "ListState",
            # No condition on the prefix: if listing isn't allowed, S3 answers 403 instead of 404 for a missing object.
            "the engine finds stacks, locks and history by listing; this shows the names of all stacks",
            ["s3:ListBucket"],
            [bucket],
        ),
        Grant(
            "ReadState",
            "the state itself, and the file with the backend's version",
            ["s3:GetObject"],
            [f"{bucket}/.pulumi/meta.yaml", *(f"{bucket}/{path}" for stack in stacks for path in paths(stack))],
        ),
        Grant(
            "DecryptState",
            "S3 decrypts objects with the caller's permissions",
            ["kms:Decrypt"],
            _keys(home),
            _by_s3(home),
        ),
        Grant(
            "DecryptSecrets",
            "Pulumi decrypts the stack's secrets; the encryption context separates the stacks",
            ["kms:Decrypt"],
            _keys(home),
            {**_named(), "StringEquals": {"kms:EncryptionContext:stack": stacks}},
        ),
    ]


def write(scope: Scope) -> list[Grant]:
    """Writing the stack's own state, and no other stack's."""
    home = scope.home
    return [
        Grant(
            "WriteState",
            "state, locks, history and backups of this stack",
            ["s3:PutObject", "s3:DeleteObject"],
            [f"arn:aws:s3:::{home.bucket}/{path}" for path in paths(scope.stack)],
        ),
        Grant(
            "EncryptState",
            "S3 encrypts objects with the caller's permissions",
            ["kms:GenerateDataKey"],
            _keys(home),
            _by_s3(home),
        ),
    ]


def _keys(home: BootstrapSettings) -> list[str]:
    # The key's id isn't known before the key exists, so the condition names its alias instead.
    return [f"arn:aws:kms:{home.region}:{home.account_id}:key/*"]


def _named() -> dict[str, Any]:
    return {"ForAnyValue:StringEquals": {"kms:ResourceAliases": ALIAS}}


def _by_s3(home: BootstrapSettings) -> dict[str, Any]:
    return {**_named(), "StringEquals": {"kms:ViaService": f"s3.{home.region}.amazonaws.com"}}
