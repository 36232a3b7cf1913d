"""Exceptions from rules, as the stack file names them: which count, and what is told of them."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase

from pydantic import BaseModel

from infra.policy.rule import Resource, rule
from infra.policy.rules import RULES
from infra.settings import PolicyException

STACK = "pulumi:pulumi:Stack"
NAMES = frozenset(one.name for one in RULES)


def today() -> date:
    """The day by which exceptions end, everywhere the same."""
    return datetime.now(UTC).date()


def named(settings: BaseModel | None) -> tuple[PolicyException, ...]:
    """The stack file's exceptions."""
    found: tuple[PolicyException, ...] = getattr(settings, "policy_exceptions", ())
    return found


def excused(name: str, resource: Resource) -> bool:
    """Whether the resource may break the rule of this name today; the rules about exceptions know none."""
    return name in NAMES and any(
        one.rule == name and one.until >= today() and fnmatchcase(resource.name, one.resources)
        for one in named(resource.settings)
    )


@rule(STACK, level="advisory")
def exceptions_in_force(resource: Resource) -> Iterator[str]:
    """Every exception that counts is printed, at every run."""
    for one in named(resource.settings):
        if one.rule in NAMES and one.until >= today():
            whom = "any resource" if one.resources == "*" else one.resources
            yield f"until {one.until} {whom} may break {one.rule}: {one.reason}"


@rule(STACK)
def exceptions_valid(resource: Resource) -> Iterator[str]:
    """An exception names a rule that there is, and has not ended."""
    for one in named(resource.settings):
        if one.rule not in NAMES:
            yield f"atlas:policyExceptions: there is no rule {one.rule}; docs/policy.md lists them"
        elif one.until < today():
            yield f"atlas:policyExceptions: that from {one.rule} ended on {one.until}: mend the cause or renew it"
