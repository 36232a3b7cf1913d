"""What people changed by hand in a stack's cluster: `preview` shows it, `up` takes it into account.

In the fields that the program sets, the program wins: `up` sets them back, and creates deleted objects again. All other
fields and objects keep what others gave them: an autoscaler's number of pods, annotations, `kubectl rollout restart`.
"""

import re
from collections.abc import Sequence

from pulumi import automation as auto

from infra.engine.events import Step
from infra.engine.stack import AtlasStack
from infra.errors import CredentialsError, FailedError

MISSING = re.compile(r'"\S+" not found')
"""How Kubernetes answers when an object, or its namespace, doesn't exist."""


def changed_by_hand(stack: AtlasStack, *, save: bool) -> tuple[Sequence[Step], str]:
    """The objects that differ from what was deployed, and why they couldn't be compared; one of both is empty.

    `save`: also write the differences into the state, so that the next `up` removes them. Without that, `up` wouldn't
    know about them, and would fail if a deleted object has to change.
    """
    try:
        return stack.compare_cluster(save=save), ""
    except (FailedError, CredentialsError, auto.CommandError) as error:
        # It isn't an error here: this `up` may be the way to reach the cluster again.
        return (), error.lines[0] if isinstance(error, FailedError) else str(error).splitlines()[0]


def described(step: Step) -> str:
    """A line about an object that was changed by hand."""
    if step.operation == "delete":
        return f"deleted by hand, `up` creates it again: {step.name}"
    return f"changed by hand, `up` sets it back: {step.name} ({', '.join(step.paths)})"


def remedy(stack: str, errors: Sequence[str]) -> str:
    """What to do about these errors of an `up`, if they come from objects that were deleted by hand; else empty."""
    if not any(MISSING.search(line) for line in errors):
        return ""
    return (
        f"an object was deleted by hand: `atlas refresh --stack {stack}`, then `atlas up --stack {stack}` creates it "
        "again"
    )
