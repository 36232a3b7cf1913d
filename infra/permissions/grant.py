"""A statement of a policy with its reason, and what it may be about: one stack's things."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.names import PROJECT, role_path, stack_prefix
from infra.settings import AwsSettings, BootstrapSettings

EVERYTHING = ("*",)
"""Only where AWS has no finer resource for the actions: the `why` says so, a test checks it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One statement."""

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

    def arn(self, service: str, *resources: str) -> list[str]:
        """ARNs in the stack's account and region."""
        return [f"arn:aws:{service}:{self.settings.region}:{self.home.account_id}:{resource}" for resource in resources]

    def ec2(self, *kinds: str) -> list[str]:
        """All things of these kinds; a condition says whose."""
        return self.arn("ec2", *(f"{kind}/*" for kind in kinds))

    @property
    def prefix(self) -> str:
        """What the stack's names begin with."""
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
        """The policy that bounds the stack's roles."""
        return f"arn:aws:iam::{self.home.account_id}:policy/{boundary_name(self.stack)}"

    @property
    def buckets(self) -> list[str]:
        """The stack's buckets, by the names that Pulumi gives them."""
        return [f"arn:aws:s3:::{self.prefix}-{kind}-bucket-*" for kind in ("data", "config")]

    @property
    def here(self) -> dict[str, Any]:
        """The condition that a call is about the stack's region."""
        return {"StringEquals": {"aws:RequestedRegion": self.settings.region}}

    @property
    def new(self) -> dict[str, Any]:
        """The condition that what is made gets the stack's tag."""
        return {"StringEquals": {"aws:RequestTag/stack": self.stack}}

    @property
    def own(self) -> dict[str, Any]:
        """The condition that a thing has the stack's tag."""
        return {"StringEquals": {"aws:ResourceTag/stack": self.stack}}

    @property
    def clusters(self) -> dict[str, Any]:
        """The condition that EKS or Kubernetes made a thing for the stack's cluster."""
        return {"StringEquals": {f"aws:ResourceTag/kubernetes.io/cluster/{self.settings.cluster_name}": "owned"}}


def boundary_name(stack: str) -> str:
    """The name of the policy that bounds a stack's roles."""
    return f"{PROJECT}-boundary-{stack}"


def document(grants: Sequence[Grant]) -> str:
    """A policy, without the spaces that IAM doesn't count."""
    statements = [grant.statement() for grant in grants]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
