"""Every IAM policy of the program, against AWS's published list of actions (policy-sentry has it)."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from policy_sentry.querying.actions import get_action_data

from tests.infra.support.aws import up

pytestmark = pytest.mark.slow


def statements(variant: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Resource name and statement, of all that grants rights to a role."""
    for call in up(variant).world.existing().values():
        if call.token == "aws:iam/rolePolicy:RolePolicy":
            for statement in json.loads(call.inputs["policy"])["Statement"]:
                yield call.name, statement


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def problems(statement: dict[str, Any]) -> list[str]:
    """What AWS would ignore or refuse, and what is wider than it need be."""
    found = []
    if statement["Effect"] != "Allow":
        found.append("only grants are expected")
    for action in listed(statement["Action"]):
        service, name = action.split(":")
        if "*" in action:
            found.append(f"{action}: a wildcard action")
            continue
        data = (get_action_data(service, name) or {}).get(service)
        if not data:
            found.append(f"{action}: no such action")
            continue
        formats = {entry["resource_arn_format"] for entry in data} - {"*"}
        for resource in listed(statement["Resource"]):
            if resource == "*" and formats:
                found.append(f"{action}: on everything, though AWS can name {', '.join(sorted(formats))}")
            elif action == "logs:DescribeLogStreams" and resource.endswith(":log-stream:*"):
                continue  # so the service's own denials name what it checks, unlike the reference of IAM's actions
            elif resource != "*" and not any(_fits(resource, form) for form in formats):
                found.append(f"{action}: {resource} is no resource of it")
        keys = {key for entry in data for key in entry["condition_keys"]}
        used = {key for test in statement.get("Condition", {}).values() for key in test}
        found += [f"{action}: no condition {key}" for key in sorted(used) if not _known(key, keys)]
    return found


def _fits(resource: str, form: str) -> bool:
    pattern = re.escape(form).replace(r"\$\{Partition\}", "aws")
    pattern = re.sub(r"\\\$\\\{\w+\\\}", r"[^:]*", pattern)
    return re.fullmatch(pattern, resource) is not None


def _known(key: str, keys: set[str]) -> bool:
    return key in keys or key.startswith("aws:")


@pytest.mark.parametrize("variant", ["base", "full"])
def test_policies_name_real_actions_on_the_right_resources(variant: str) -> None:
    found = list(statements(variant))
    assert len(found) >= 6
    assert [(name, problem) for name, statement in found for problem in problems(statement)] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"Action": "s3:GetObjekt"}, "no such action"),
        ({"Action": "s3:*"}, "a wildcard action"),
        ({"Resource": "*"}, "on everything"),
        ({"Resource": "arn:aws:sns:us-east-1:123456789012:topic"}, "no resource of it"),
        ({"Condition": {"StringEquals": {"s3:nonsense": "x"}}}, "no condition"),
    ],
)
def test_lint_catches(change: dict[str, Any], told: str) -> None:
    good = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/key"}
    assert problems(good) == []
    assert any(told in problem for problem in problems(good | change))


def test_roles_are_assumed_by_one_service_each() -> None:
    trusted = {}
    for call in up("full").world.existing().values():
        if call.token == "aws:iam/role:Role":
            (statement,) = json.loads(call.inputs["assumeRolePolicy"])["Statement"]
            (principal,) = listed(statement["Principal"]["Service"])
            trusted[call.name] = principal
    assert trusted == {
        "prometheus-role": "ec2.amazonaws.com",
        "grafana-role": "ec2.amazonaws.com",
        "atlas-dev-flow-logs-role": "vpc-flow-logs.amazonaws.com",
        "atlas-dev-node": "ec2.amazonaws.com",
        "atlas-dev-eksRole-role": "eks.amazonaws.com",
        "atlas-dev-materializer-role": "pods.eks.amazonaws.com",
        "atlas-dev-service-role": "pods.eks.amazonaws.com",
    }


def test_buckets_refuse_what_is_not_tls() -> None:
    policies = [call for call in up("base").world.existing().values() if "bucketPolicy:" in call.token]
    assert len(policies) == 2
    for call in policies:
        (statement,) = json.loads(call.inputs["policy"])["Statement"]
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
