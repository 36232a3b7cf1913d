"""Decodes the engine's events: which operation runs on which resource, errors, warnings and policy violations."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pulumi.automation.events import DiagnosticEvent, EngineEvent, PolicyEvent, StepEventMetadata

from infra.errors import EXPIRED_LINE, CredentialsError, FailedError, expired, one_line

VERBS: Mapping[str, str] = {
    "create": "starting",
    "update": "changing",
    "delete": "removing",
    "replace": "replacing",
    "create-replacement": "replacing",
    "delete-replaced": "removing",
}
"""Operation -> its verb in the line that is printed when it starts; other operations change nothing."""
QUIET = frozenset({"same", "read", "refresh", "create-replacement", "delete-replaced"})
"""Operations that aren't counted as steps: they change nothing, or they are half of a replacement, which is counted
as a single step."""
FAILED = frozenset({"preview failed", "update failed"})
"""The engine's final error, which only says that there were other errors."""


def plain(text: str) -> str:
    """The engine's text without its markup for colours."""
    return re.sub(r"<\{%.*?%\}>", "", text).strip()


def name_of(urn: str) -> str:
    """A resource's name, from its URN."""
    return urn.rsplit("::", 1)[-1]


@dataclass(frozen=True, slots=True)
class Step:
    """A resource that changes, or would change."""

    name: str
    kind: str
    """Its type, as at the end of its URN: aws:s3/bucket:Bucket."""
    operation: str
    """create, update, delete, replace …"""
    paths: Sequence[str]
    """Properties that differ."""


def _silent(_: str) -> None:
    pass


@dataclass(slots=True)
class Events:
    """Decodes and collects what the engine reports in one run.

    While the engine runs, `say` gets a line when a resource starts to change, and for each advisory policy violation.
    """

    say: Callable[[str], None] = _silent
    steps: list[Step] = field(default_factory=list)
    changes: dict[str, str] = field(default_factory=dict)
    """Resource name -> operation, for the resources that the engine has finished."""
    drifted: list[Step] = field(default_factory=list)
    """Resources whose real state, which a refresh has read, differs from the recorded state: update or delete."""
    policies: list[str] = field(default_factory=list)
    """Violations of advisory policies; a violation of a mandatory policy is an error."""
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _reading: set[str] = field(default_factory=set)
    """URNs of the resources that a refresh is reading."""

    def __call__(self, event: EngineEvent) -> None:
        """Process one event; the Automation API calls this."""
        if event.resource_pre_event is not None:
            self._begun(event.resource_pre_event.metadata)
        elif event.res_outputs_event is not None:
            self._done(event.res_outputs_event.metadata)
        elif event.diagnostic_event is not None:
            self._told(event.diagnostic_event)
        elif event.policy_event is not None:
            self._judged(event.policy_event)

    def raise_errors(self) -> None:
        """Raise FailedError with the errors, if there are any; CredentialsError if the credentials expired."""
        if expired("\n".join(self.errors)):
            raise CredentialsError(EXPIRED_LINE) from None
        if self.errors:
            raise FailedError(self.errors) from None

    def _begun(self, step: StepEventMetadata) -> None:
        if not _is_ours(step):
            return
        operation = _operation(step)
        if operation == "refresh":
            self._reading.add(step.urn)
        if operation in VERBS:
            self.say(f"  {VERBS[operation]} {name_of(step.urn)}")
        if operation not in QUIET:
            self.steps.append(_step(step))

    def _done(self, step: StepEventMetadata) -> None:
        if not _is_ours(step) or _operation(step) not in VERBS:
            return
        if step.urn in self._reading:
            self._reading.remove(step.urn)
            self.drifted.append(_step(step))
        self.changes[name_of(step.urn)] = _operation(step)

    def _told(self, said: DiagnosticEvent) -> None:
        found = {"error": self.errors, "warning": self.warnings}.get(said.severity)
        text = plain(said.message)
        # The engine also warns about each provider that it found on PATH; that doesn't concern the change.
        if found is not None and text not in (*found, *FAILED) and not text.startswith("using pulumi-resource-"):
            found.append(text)

    def _judged(self, judged: PolicyEvent) -> None:
        # The first line is the policy's meaning, the rest is the violation.
        text = one_line(plain(judged.message).split("\n", 1)[-1])
        told = f"{judged.policy_name}: {text}"
        if judged.enforcement_level == "mandatory":
            self.errors.append(f"policy {told}")
        else:
            self.policies.append(told)
            self.say(f"  policy {told}")


def _step(step: StepEventMetadata) -> Step:
    paths = sorted(step.detailed_diff or {}) or sorted(step.diffs or ())
    return Step(name_of(step.urn), step.type, _operation(step), paths)


def _operation(step: StepEventMetadata) -> str:
    return str(step.op.value)


def _is_ours(step: StepEventMetadata) -> bool:
    """Whether it is a resource of the program: neither the stack itself nor a provider."""
    return not step.type.startswith("pulumi:")
