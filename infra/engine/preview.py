"""What a preview would do, as a document: for scripts, pull-request comments and the look for drift."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pulumi.automation import events

from infra.engine.workspace import COLOURS
from infra.errors import one_line

QUIET = frozenset({"same", "read", "refresh", "create-replacement", "delete-replaced"})
"""Operations that change nothing, and the halves of a replacement, which is told as a whole."""


@dataclass(frozen=True, slots=True)
class Step:
    """One resource that would change."""

    name: str
    kind: str
    """As in its URN's end: aws:s3/bucket:Bucket."""
    operation: str
    """create, update, delete, replace …"""
    paths: Sequence[str]
    """Properties that differ."""


@dataclass(slots=True)
class Foreseen:
    """Collects what the engine says while it previews; its lines go to `lines` by `said`."""

    stack: str
    steps: list[Step] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    """What policies advise; a breach of a mandatory one is an error."""
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """What was left out: not asked for, not compared."""
    cluster: str = ""
    """Why Kubernetes objects were compared with the state alone; empty when the cluster itself was asked, or has none
    that would change."""

    def said(self, line: str) -> None:
        """A line of the engine's own display."""
        self.lines.append(line.rstrip("\n"))

    def __call__(self, event: events.EngineEvent) -> None:
        if event.resource_pre_event is not None:
            step = event.resource_pre_event.metadata
            operation = str(getattr(step.op, "value", step.op))
            if operation not in QUIET and not step.type.startswith("pulumi:"):
                paths = sorted(step.detailed_diff or {}) or sorted(step.diffs or ())
                self.steps.append(Step(_name(step.urn), step.type, operation, paths))
        elif event.diagnostic_event is not None:
            found = {"error": self.errors, "warning": self.warnings}.get(event.diagnostic_event.severity)
            text = COLOURS.sub("", event.diagnostic_event.message).strip()
            # Not of the change: that it failed, said once more; where a provider was found.
            noise = text == "preview failed" or text.startswith("using pulumi-resource-")
            if found is not None and text not in found and not noise:
                found.append(text)
        elif event.policy_event is not None:
            told = event.policy_event
            text = one_line(COLOURS.sub("", told.message).strip().split("\n", 1)[-1])
            if told.enforcement_level == "mandatory":
                self.errors.append(f"policy {told.policy_name}: {text}")
            else:
                self.policies.append(f"{told.policy_name}: {text}")

    @property
    def changes(self) -> dict[str, int]:
        """Operation -> how many resources."""
        return dict(Counter(step.operation for step in self.steps))

    def without(self, *kinds: str) -> None:
        """Leave steps of these kinds out."""
        self.steps = [step for step in self.steps if step.kind not in kinds]

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        text = COLOURS.sub("", "\n".join(self.lines))
        return {
            "stack": self.stack,
            "changes": self.changes,
            "resources": {step.name: step.operation for step in self.steps},
            "steps": [asdict(step) for step in self.steps],
            "policies": self.policies,
            "warnings": self.warnings,
            "errors": self.errors,
            "unseen": sorted(set(self.unseen)),
            "cluster": self.cluster,
            "text": re.sub(r"\n{3,}", "\n\n", text).strip(),
        }


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]
