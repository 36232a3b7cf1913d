"""What a policy document allows: the part of IAM's evaluation that our policies use, and AWS's list of actions."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from policy_sentry.querying.actions import get_action_data

Statement = Mapping[str, Any]


def statements(*documents: str) -> list[Statement]:
    """All statements of these documents."""
    return [statement for document in documents for statement in json.loads(document)["Statement"]]


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def allows(given: Iterable[Statement], action: str, resource: str, **context: str) -> bool:
    """Whether one of the statements allows it; context keys are written with `__` for `:` and `_slash_` for `/`."""
    known = {key.replace("__", ":").replace("_slash_", "/"): value for key, value in context.items()}
    return permits(given, action, resource, known)


def permits(given: Iterable[Statement], action: str, resource: str, known: Mapping[str, str]) -> bool:
    """Whether one of the statements allows the action on the resource; `known`: condition key -> value."""
    return any(
        action in listed(statement["Action"])
        and any(_like(resource, pattern) for pattern in listed(statement["Resource"]))
        and all(_holds(test, keys, known) for test, keys in statement.get("Condition", {}).items())
        for statement in given
    )


def _holds(test: str, keys: Mapping[str, Any], known: Mapping[str, str]) -> bool:
    operator = test.removeprefix("ForAnyValue:")
    for key, wanted in keys.items():
        value = known.get(key)
        match operator:
            case "Null":
                if (value is None) != (wanted == "true"):
                    return False
            case "StringEquals" | "ArnEquals" | "Bool":
                if value not in listed(wanted):
                    return False
            case "StringLike":
                if value is None or not any(_like(value, pattern) for pattern in listed(wanted)):
                    return False
            case _:
                raise AssertionError(f"{test}: not evaluated here")
    return True


def _like(text: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL) is not None


def problems(statement: Statement) -> Iterator[str]:
    """What AWS would ignore or refuse, and what is wider than it need be."""
    if statement["Effect"] != "Allow":
        yield "only grants are expected"
    resources = listed(statement["Resource"])
    used = {key for test in statement.get("Condition", {}).values() for key in test}
    fitting: set[str] = set()
    for action in listed(statement["Action"]):
        if "*" in action:
            yield f"{action}: a wildcard action"
            continue
        entries = entries_of(action)
        if not entries:
            yield f"{action}: no such action"
            continue
        formats = {entry["resource_arn_format"]: entry for entry in entries if entry["resource_arn_format"] != "*"}
        if resources == ["*"]:
            if formats:
                yield f"{action}: on everything, though AWS can name {', '.join(sorted(formats))}"
            supported = {key for entry in entries for key in entry["condition_keys"]}
        else:
            fits = {resource: [form for form in formats if _fits(resource, form)] for resource in resources}
            fitting |= {resource for resource, forms in fits.items() if forms}
            if not any(fits.values()):
                yield f"{action}: none of {', '.join(resources)} is a resource of it"
                continue
            supported = {
                key for forms in fits.values() for form in forms for key in formats[form]["condition_keys"]
            } | {key for entry in entries if entry["resource_arn_format"] == "*" for key in entry["condition_keys"]}
        yield from (f"{action}: no condition {key}" for key in sorted(used) if not _supported(key, supported))
    if resources != ["*"]:
        yield from (f"{resource}: of no action" for resource in sorted(set(resources) - fitting))


@cache
def entries_of(action: str) -> list[dict[str, Any]]:
    """The action as AWS publishes it: one entry for each type of resource."""
    service, name = action.split(":")
    found: list[dict[str, Any]] = (get_action_data(service, name) or {}).get(service, [])
    return found


def fits(resource: str, action: str) -> bool:
    """Whether AWS authorises the action for resources of this form."""
    forms = {entry["resource_arn_format"] for entry in entries_of(action)} - {"*"}
    return any(_fits(resource, form) for form in forms)


def _fits(resource: str, form: str) -> bool:
    """Whether the resource is of the form, or holds things of the form: loadbalancer/* holds loadbalancer/net/…."""
    if resource.startswith("arn:aws:logs:") and ":log-stream:" not in resource:
        resource = resource.removesuffix(":*")  # how CloudWatch Logs writes a group's ARN for some of its actions
    pattern = re.escape(form).replace(r"\$\{Partition\}", "aws")
    pattern = re.sub(r"\\\$\\\{\w+\\\}", r"[^:]*", pattern)
    if re.fullmatch(pattern, resource):
        return True
    *head, kind = resource.split(":", 5)
    return form.split(":")[2] == head[2] and _like(re.sub(r"\$\{\w+\}", "x", form.split(":", 5)[5]), kind)


def _supported(key: str, supported: set[str]) -> bool:
    """Every request has the global keys; whether a tag is known depends on action and resource."""
    if key.startswith(("aws:RequestTag/", "aws:ResourceTag/")):
        return f"{key.split('/', maxsplit=1)[0]}/${{TagKey}}" in supported
    if key.startswith("kms:EncryptionContext:"):
        return "kms:EncryptionContext:${EncryptionContextKey}" in supported
    return key.startswith("aws:") or key in supported
