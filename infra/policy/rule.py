"""Defines rules: a rule checks the inputs of a single resource, or all resources of a stack."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

Level = Literal["mandatory", "advisory"]


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a stack.

    During a preview, reading an unknown input raises pulumi_policy's UnknownValueError. The rule is then skipped, and
    runs again during `up`, before the resource is created.
    """

    kind: str
    """Its type, such as aws:s3/bucket:Bucket."""
    name: str
    """Its name in the program."""
    inputs: Mapping[str, Any]
    """Its inputs; for the stack itself (pulumi:pulumi:Stack), its outputs."""
    settings: BaseModel | None = None
    """The stack's settings (infra/settings.py); None if they couldn't be read."""
    urn: str = ""
    uses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Input -> URNs of the resources that its value comes from; for rules over a whole stack."""


Check = Callable[[Resource], Iterable[str]]
"""A resource -> a message for each violation."""
StackCheck = Callable[[Sequence[Resource]], Iterable[tuple[Resource, str]]]
"""All resources of a stack -> each violating resource with a message."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule over one resource at a time."""

    name: str
    meaning: str
    kinds: tuple[str, ...]
    """The resource types that it checks; a type that ends with `:` or `/` is a prefix; empty means all types."""
    ids: tuple[str, ...]
    """Its ids in other rule sets: checkov (CKV…), the CIS benchmarks of AWS, 3.0.0, and of EKS, 1.8.0 (CIS EKS)."""
    level: Level
    check: Check

    def __call__(self, resource: Resource) -> list[str]:
        """Messages about the resource's violations; empty when the rule doesn't check its type."""
        return list(self.check(resource)) if self.covers(resource.kind) else []

    def covers(self, kind: str) -> bool:
        """Whether it checks resources of this type."""
        return not self.kinds or any(kind == own or (own[-1] in ":/" and kind.startswith(own)) for own in self.kinds)


@dataclass(frozen=True, slots=True)
class StackRule:
    """A rule over all resources of a stack; it runs after all of them are declared."""

    name: str
    meaning: str
    ids: tuple[str, ...]
    level: Level
    check: StackCheck

    def __call__(self, resources: Sequence[Resource]) -> list[tuple[Resource, str]]:
        """Each violating resource with a message."""
        return list(self.check(resources))


def rule(*kinds: str, ids: Sequence[str] = (), level: Level = "mandatory") -> Callable[[Check], Rule]:
    """Turn a function into a rule: its name becomes the rule's name, its docstring's first line the meaning."""

    def made(check: Check) -> Rule:
        return Rule(_name(check), _meaning(check), kinds, tuple(ids), level, check)

    return made


def stack_rule(*, ids: Sequence[str] = (), level: Level = "mandatory") -> Callable[[StackCheck], StackRule]:
    """The same for a function that checks a whole stack."""

    def made(check: StackCheck) -> StackRule:
        return StackRule(_name(check), _meaning(check), tuple(ids), level, check)

    return made


def _name(check: Callable[..., Any]) -> str:
    return str(getattr(check, "__name__", "")).replace("_", "-")


def _meaning(check: Callable[..., Any]) -> str:
    return (check.__doc__ or "").strip().splitlines()[0].rstrip(".")


def items(value: Any) -> list[Any]:
    """A list unchanged, a single value as a list, None as an empty list: AWS accepts all three forms."""
    if value is None:
        return []
    return [*value] if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def true(value: Any) -> bool:
    """Whether an input is true; some providers use the string "true"."""
    return value is True or value == "true"


def statements(policy: Any) -> Iterator[Mapping[str, Any]]:
    """The statements of an IAM policy document, given as JSON or as an object."""
    document = json.loads(policy) if isinstance(policy, str) else policy
    yield from items((document or {}).get("Statement"))


def allowed(policy: Any) -> Iterator[Mapping[str, Any]]:
    """The statements of a policy whose effect is Allow."""
    return (statement for statement in statements(policy) if statement.get("Effect") == "Allow")
