"""What an `up` would change, as a document for scripts, pull-request comments and the check for drift."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.deployment.by_hand import changed_by_hand, described
from infra.deployment.up import open_for_change, program_for
from infra.engine.events import Events, Step, plain
from infra.engine.stack import AtlasStack, Say
from infra.errors import ClusterError
from infra.names import IMAGE_TYPE
from infra.settings import AwsSettings, LocalSettings

BUILD = frozenset({"docker-build:index:Image", IMAGE_TYPE})
"""Types of the resources that build an image; they aren't declared if a given image is deployed."""
UNREADABLE = {
    "**kubernetes:**": "objects in the cluster",
    "**::aws:secretsmanager/secretVersion:SecretVersion::**": "secrets' values",
    "**$aws:secretsmanager/secretVersion:SecretVersion::**": "secrets' values",
}
"""Pattern of URNs that the read-only role can't read -> what they are."""


@dataclass(slots=True)
class Foreseen:
    """What the engine reports during a preview, and the lines of its own display."""

    stack: str
    events: Events = field(default_factory=Events)
    lines: list[str] = field(default_factory=list)
    without: frozenset[str] = frozenset()
    """Types of resources whose steps are left out."""
    unseen: list[str] = field(default_factory=list)
    """What was left out of the comparison."""
    cluster: str = ""
    """Why Kubernetes objects were compared only with the state; empty if they were compared with the cluster, or if no
    existing object would change."""
    by_hand: Sequence[Step] = ()
    """Objects in the cluster that were changed or deleted by hand; `up` sets them back, or creates them again."""

    @property
    def steps(self) -> list[Step]:
        """What would change."""
        return [step for step in self.events.steps if step.kind not in self.without]

    def document(self) -> dict[str, Any]:
        """The whole preview, for JSON."""
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
            "byHand": [described(step) for step in self.by_hand],
            "text": re.sub(r"\n{3,}", "\n\n", plain("\n".join(self.lines))),
        }


def foresee(
    stack: AtlasStack,
    foreseen: Foreseen,
    *,
    look: bool,
    deployed: bool,
    reader: bool,
    show: Say,
) -> bool:
    """Preview an `up` and collect its result in `foreseen`, even if it fails; False if there is nothing to compare.

    `look`: first read the real state of all resources; `deployed`: with the image that the stack runs; `reader`: leave
    out what a read-only role can't read; `show` gets the lines of the engine's own display.
    Raises FailedError with what the engine reported, CredentialsError when the credentials expired.
    """
    settings = stack.settings
    image: str | None = None
    if deployed and isinstance(settings, AwsSettings):
        image, _ = stack.deployed()
        if image is None:
            stack.say(f"{stack.name} isn't deployed: there is nothing to compare")
            return False
        # With a given image, its build isn't declared. An `up` with this image would only remove the build from the
        # state, so it is no drift.
        foreseen.without = BUILD
    if reader:
        foreseen.unseen = list(UNREADABLE.values())

    def told(line: str) -> None:
        foreseen.lines.append(line)
        show(line)

    declare = program_for(stack, image)
    open_for_change(stack)
    stack.preview(
        declare,
        foreseen.events,
        refresh=look or isinstance(settings, LocalSettings),
        exclude=list(UNREADABLE) if reader else (),
        show=told,
    )
    if isinstance(settings, AwsSettings) and not reader:
        # The engine's own display doesn't contain these: it compares with the state, which a preview must not change.
        foreseen.by_hand, unknown = changed_by_hand(stack, save=False)
        foreseen.cluster = unknown or _client_side(settings, foreseen)
    return True


def _client_side(settings: AwsSettings, foreseen: Foreseen) -> str:
    """Why Kubernetes objects could only be compared with the state: the comparison with the cluster is a patch."""
    if not any(step.kind.startswith("kubernetes:") and step.operation != "create" for step in foreseen.steps):
        return ""
    from infra.deployment.pods import cluster_of, may_patch

    try:
        with cluster_of(settings) as api:
            return "" if may_patch(api, settings.namespace) else "this caller may not change anything in the cluster"
    except ClusterError as error:
        return str(error)
