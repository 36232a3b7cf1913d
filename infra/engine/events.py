"""The engine's events, decoded: what it does to which resource, its errors and warnings, what policies say."""

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
"""Operation -> the word for it in the line that is said when it begins; other operations change nothing."""
QUIET = frozenset({"same", "read", "refresh", "create-replacement", "delete-replaced"})
"""Operations that are no step: they change nothing, or are the halves of a replacement, which is a step as a whole."""
FAILED = frozenset({"preview failed", "update failed"})
"""The engine's last error, which only says that there were others."""


def plain(text: str) -> str:
    """The engine's text without the marks that stand for colours."""
    return re.sub(r"<\{%.*?%\}>", "", text).strip()


def name_of(urn: str) -> str:
    """A resource's name, from its URN."""
    return urn.rsplit("::", 1)[-1]


@dataclass(frozen=True, slots=True)
class Step:
    """One resource that changes, or would."""

    name: str
    kind: str
    """As in its URN's end: aws:s3/bucket:Bucket."""
    operation: str
    """create, update, delete, replace …"""
    paths: Sequence[str]
    """Properties that differ."""


def _silent(_: str) -> None:
    pass


@dataclass(slots=True)
class Events:
    """Decodes what the engine reports in one run, and collects it.

    `say` gets a line for each resource that begins to change, and for what a policy advises, while the engine runs.
    """

    say: Callable[[str], None] = _silent
    steps: list[Step] = field(default_factory=list)
    changes: dict[str, str] = field(default_factory=dict)
    """Resource name -> operation, of those that the engine is done with."""
    policies: list[str] = field(default_factory=list)
    """What policies advise; a breach of a mandatory policy is an error."""
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __call__(self, event: EngineEvent) -> None:
        """Take in one event; the Automation API calls this."""
        if event.resource_pre_event is not None:
            self._begun(event.resource_pre_event.metadata)
        elif event.res_outputs_event is not None:
            done = event.res_outputs_event.metadata
            if _operation(done) in VERBS and _is_ours(done):
                self.changes[name_of(done.urn)] = _operation(done)
        elif event.diagnostic_event is not None:
            self._told(event.diagnostic_event)
        elif event.policy_event is not None:
            self._judged(event.policy_event)

    def raise_errors(self) -> None:
        """Raise FailedError with the errors, if there are any; CredentialsError when credentials ended meanwhile."""
        if expired("\n".join(self.errors)):
            raise CredentialsError(EXPIRED_LINE) from None
        if self.errors:
            raise FailedError(self.errors) from None

    def _begun(self, step: StepEventMetadata) -> None:
        if not _is_ours(step):
            return
        operation, name = _operation(step), name_of(step.urn)
        if operation in VERBS:
            self.say(f"  {VERBS[operation]} {name}")
        if operation not in QUIET:
            paths = sorted(step.detailed_diff or {}) or sorted(step.diffs or ())
            self.steps.append(Step(name, step.type, operation, paths))

    def _told(self, said: DiagnosticEvent) -> None:
        found = {"error": self.errors, "warning": self.warnings}.get(said.severity)
        text = plain(said.message)
        # Where the engine found a provider is no warning of the change.
        if found is not None and text not in (*found, *FAILED) and not text.startswith("using pulumi-resource-"):
            found.append(text)

    def _judged(self, judged: PolicyEvent) -> None:
        # The first line is the policy's meaning, the rest what is wrong.
        text = one_line(plain(judged.message).split("\n", 1)[-1])
        told = f"{judged.policy_name}: {text}"
        if judged.enforcement_level == "mandatory":
            self.errors.append(f"policy {told}")
        else:
            self.policies.append(told)
            self.say(f"  policy {told}")


def _operation(step: StepEventMetadata) -> str:
    return str(step.op.value)


def _is_ours(step: StepEventMetadata) -> bool:
    """Not the stack itself, nor a provider."""
    return not step.type.startswith("pulumi:")
