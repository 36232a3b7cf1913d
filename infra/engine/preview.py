"""What a preview would do, as a document: for scripts, pull-request comments and the look for drift."""

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.engine.events import Events, Step, plain


@dataclass(slots=True)
class Foreseen:
    """What the engine reports while it previews, and the lines of its own display, which `said` takes."""

    stack: str
    events: Events = field(default_factory=Events)
    lines: list[str] = field(default_factory=list)
    kept: frozenset[str] = frozenset()
    """Kinds of resources whose steps are left out."""
    unseen: list[str] = field(default_factory=list)
    """What was left out: not asked for, not compared."""
    cluster: str = ""
    """Why Kubernetes objects were compared with the state alone; empty when the cluster itself was asked, or has none
    that would change."""

    def said(self, line: str) -> None:
        """A line of the engine's own display."""
        self.lines.append(line.rstrip("\n"))

    @property
    def steps(self) -> list[Step]:
        """What would change."""
        return [step for step in self.events.steps if step.kind not in self.kept]

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "stack": self.stack,
            "changes": dict(Counter(step.operation for step in self.steps)),
            "resources": {step.name: step.operation for step in self.steps},
            "steps": [asdict(step) for step in self.steps],
            "policies": self.events.policies,
            "warnings": self.events.warnings,
            "errors": self.events.errors,
            "unseen": sorted(set(self.unseen)),
            "cluster": self.cluster,
            "text": re.sub(r"\n{3,}", "\n\n", plain("\n".join(self.lines))),
        }
