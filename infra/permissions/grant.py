"""A policy statement with its reason (Grant), and the resources of a stack that statements may name (Scope)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.names import PROJECT, role_path, stack_prefix
from infra.settings import AwsSettings, BootstrapSettings

EVERYTHING = ("*",)
"""Only for actions for which AWS has no finer resource: the `why` must say so, and a test checks it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A policy statement with its reason."""

    sid: str
    why: str
    actions: Sequence[str]
    resources: Sequence[str]
    condition: Mapping[str, Any] = field(default_factory=dict)

    def statement(self) -> dict[str, Any]:
        """The statement in IAM's format."""
        written: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": sorted(self.actions),
            "Resource": sorted(self.resources),
        }
        return written | ({"Condition": dict(self.condition)} if self.condition else {})


@dataclass(frozen=True, slots=True)
class Scope:
    """ARNs and conditions that limit a role to the resources of a stack."""

    stack: str
    settings: AwsSettings
    home: BootstrapSettings

    def arn(self, service: str, *resources: str) -> list[str]:
        """ARNs in the stack's account and region."""
        return [f"arn:aws:{service}:{self.settings.region}:{self.home.account_id}:{resource}" for resource in resources]

    def ec2(self, *kinds: str) -> list[str]:
        """All EC2 resources of these kinds; a condition must limit them to the stack."""
        return self.arn("ec2", *(f"{kind}/*" for kind in kinds))

    @property
    def prefix(self) -> str:
        """The prefix of the stack's names."""
        return stack_prefix(self.stack)

    @property
    def roles(self) -> str:
        """The stack's own roles."""
        return f"arn:aws:iam::{self.home.account_id}:role{role_path(self.stack)}*"

    @property
    def profiles(self) -> str:
        """The stack's instance profiles."""
        return f"arn:aws:iam::{self.home.account_id}:instance-profile{role_path(self.stack)}*"

    @property
    def boundary(self) -> str:
        """The permissions boundary of the stack's roles."""
        return f"arn:aws:iam::{self.home.account_id}:policy/{boundary_name(self.stack)}"

    @property
    def buckets(self) -> list[str]:
        """The stack's buckets, with the names that Pulumi generates."""
        return [f"arn:aws:s3:::{self.prefix}-{kind}-bucket-*" for kind in ("data", "config")]

    @property
    def tables(self) -> list[str]:
        """The stack's DynamoDB tables, with the names that Pulumi generates."""
        return self.arn("dynamodb", f"table/{self.prefix}-features-*")

    @property
    def here(self) -> dict[str, Any]:
        """The condition that a request goes to the stack's region."""
        return {"StringEquals": {"aws:RequestedRegion": self.settings.region}}

    @property
    def new(self) -> dict[str, Any]:
        """The condition that a new resource gets the stack's tag."""
        return {"StringEquals": {"aws:RequestTag/stack": self.stack}}

    @property
    def own(self) -> dict[str, Any]:
        """The condition that an existing resource has the stack's tag."""
        return {"StringEquals": {"aws:ResourceTag/stack": self.stack}}

    @property
    def new_key(self) -> dict[str, Any]:
        """The condition that a KMS key has no stack's tag and no alias.

        For some minutes KMS authorises as if a new key had no tags. Keys of others usually have an alias.
        """
        return {"Null": {"aws:ResourceTag/stack": "true", "kms:ResourceAliases": "true"}}

    @property
    def clusters(self) -> dict[str, Any]:
        """The condition that EKS or Kubernetes created the resource for the stack's cluster."""
        return {"StringEquals": {f"aws:ResourceTag/kubernetes.io/cluster/{self.settings.cluster_name}": "owned"}}


def boundary_name(stack: str) -> str:
    """The name of the permissions boundary of a stack's roles."""
    return f"{PROJECT}-boundary-{stack}"


def document(grants: Sequence[Grant]) -> str:
    """A policy as compact JSON, because the size of a policy is limited."""
    statements = [grant.statement() for grant in grants]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
