"""Exceptions from rules, declared in the stack file: which of them are in force, and the messages about them."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase

from pydantic import BaseModel

from infra.policy.rule import Resource, rule
from infra.policy.rules import RULES
from infra.setting_types import PolicyException

STACK = "pulumi:pulumi:Stack"
NAMES = frozenset(rule.name for rule in RULES)


def today() -> date:
    """The current day in UTC, so that an exception ends at the same time everywhere."""
    return datetime.now(UTC).date()


def named(settings: BaseModel | None) -> tuple[PolicyException, ...]:
    """The stack file's exceptions."""
    found: tuple[PolicyException, ...] = getattr(settings, "policy_exceptions", ())
    return found


def excused(name: str, resource: Resource) -> bool:
    """Whether the resource may violate the rule of this name today; the rules about exceptions have no exceptions."""
    return name in NAMES and any(
        exception.rule == name and exception.until >= today() and fnmatchcase(resource.name, exception.resources)
        for exception in named(resource.settings)
    )


@rule(STACK, level="advisory")
def exceptions_in_force(resource: Resource) -> Iterator[str]:
    """Every run prints the exceptions that are in force."""
    for exception in named(resource.settings):
        if exception.rule in NAMES and exception.until >= today():
            whom = "any resource" if exception.resources == "*" else exception.resources
            yield f"until {exception.until} {whom} may violate {exception.rule}: {exception.reason}"


@rule(STACK)
def exceptions_valid(resource: Resource) -> Iterator[str]:
    """An exception names an existing rule and has not expired."""
    for exception in named(resource.settings):
        if exception.rule not in NAMES:
            yield f"atlas:policyExceptions: there is no rule {exception.rule}; docs/policy.md lists the rules"
        elif exception.until < today():
            yield (
                f"atlas:policyExceptions: the exception from {exception.rule} expired on {exception.until}: "
                "fix the cause or renew the exception"
            )
