"""What a rule is, and what it sees: one resource's inputs, or all resources of a stack."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

Level = Literal["mandatory", "advisory"]


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a stack.

    At a preview, to read an input that isn't known yet raises pulumi_policy's UnknownValueError: the rule then waits
    for `up`, where it is asked again before the resource is made.
    """

    kind: str
    """Its type, such as aws:s3/bucket:Bucket."""
    name: str
    """Its name in the program."""
    inputs: Mapping[str, Any]
    """What it is asked to be; of the stack itself (pulumi:pulumi:Stack), its outputs."""
    settings: BaseModel | None = None
    """The stack's settings (infra/settings.py); None where there are none."""
    urn: str = ""
    uses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Input -> URNs of the resources it comes from; for rules over a whole stack."""


Check = Callable[[Resource], Iterable[str]]
"""A resource -> a line for each thing that is wrong with it."""
StackCheck = Callable[[Sequence[Resource]], Iterable[tuple[Resource, str]]]
"""All resources of a stack -> those with something wrong, and what."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule over one resource at a time."""

    name: str
    meaning: str
    kinds: tuple[str, ...]
    """Types it is about; those with a trailing `:` or `/` are prefixes; none: all."""
    ids: tuple[str, ...]
    """What other rule books call it: checkov (CKV…), the CIS benchmarks of AWS, 3.0.0, and of EKS, 1.8.0 (CIS EKS)."""
    level: Level
    check: Check

    def __call__(self, resource: Resource) -> list[str]:
        """What is wrong with the resource; nothing when the rule isn't about its type."""
        return list(self.check(resource)) if self.covers(resource.kind) else []

    def covers(self, kind: str) -> bool:
        """Whether it is about resources of this type."""
        return not self.kinds or any(kind == own or (own[-1] in ":/" and kind.startswith(own)) for own in self.kinds)


@dataclass(frozen=True, slots=True)
class StackRule:
    """A rule over all resources of a stack, asked when all are known."""

    name: str
    meaning: str
    ids: tuple[str, ...]
    level: Level
    check: StackCheck

    def __call__(self, resources: Sequence[Resource]) -> list[tuple[Resource, str]]:
        """The resources with something wrong, and what."""
        return list(self.check(resources))


def rule(*kinds: str, ids: Sequence[str] = (), level: Level = "mandatory") -> Callable[[Check], Rule]:
    """Make a function a rule: named as it is, meaning what its docstring's first line says."""

    def made(check: Check) -> Rule:
        return Rule(_name(check), _meaning(check), kinds, tuple(ids), level, check)

    return made


def stack_rule(*, ids: Sequence[str] = (), level: Level = "mandatory") -> Callable[[StackCheck], StackRule]:
    """The same for a function over a whole stack."""

    def made(check: StackCheck) -> StackRule:
        return StackRule(_name(check), _meaning(check), tuple(ids), level, check)

    return made


def _name(check: Callable[..., Any]) -> str:
    return str(getattr(check, "__name__", "")).replace("_", "-")


def _meaning(check: Callable[..., Any]) -> str:
    return (check.__doc__ or "").strip().splitlines()[0].rstrip(".")


def items(value: Any) -> list[Any]:
    """A list as it is, one thing as a list of it, nothing as none: AWS takes all three."""
    if value is None:
        return []
    return [*value] if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def true(value: Any) -> bool:
    """Whether an input says yes: some providers take a string."""
    return value is True or value == "true"


def statements(policy: Any) -> Iterator[Mapping[str, Any]]:
    """The statements of an IAM policy document, given as JSON or as an object."""
    document = json.loads(policy) if isinstance(policy, str) else policy
    yield from items((document or {}).get("Statement"))


def allowed(policy: Any) -> Iterator[Mapping[str, Any]]:
    """Those of them that grant something."""
    return (statement for statement in statements(policy) if statement.get("Effect") == "Allow")
