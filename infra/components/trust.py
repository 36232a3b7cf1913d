"""IAM's policy documents, and the trust policy of a role that an AWS service assumes."""

import json
from collections.abc import Mapping
from typing import Any


def policy_document(*statements: Mapping[str, Any]) -> dict[str, Any]:
    """The policy document with these statements."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def trusted(service: str, actions: str | list[str] = "sts:AssumeRole") -> str:
    """The trust policy that lets this service assume the role."""
    return json.dumps(policy_document({"Effect": "Allow", "Principal": {"Service": service}, "Action": actions}))
