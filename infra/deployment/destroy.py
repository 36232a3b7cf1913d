"""Removes a stack: the engine's destroy, tried again after sweeps, and the check that nothing is left."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from infra.deployment.checks import check_place
from infra.engine.events import name_of
from infra.engine.stack import AtlasStack
from infra.errors import FailedError, PreflightError
from infra.leftovers.look import Found, look
from infra.leftovers.place import place_of
from infra.leftovers.sweep import Swept, sweep
from infra.leftovers.unrecorded import finder
from infra.local.supervisor import Supervisord
from infra.program import REPOSITORY
from infra.settings import AwsSettings, LocalSettings

PASSING = re.compile(
    r"Throttl|RequestLimitExceeded|TooManyRequests|Rate exceeded|SlowDown|DependencyViolation|ResourceInUse"
    r"|BucketNotEmpty|OperationAborted|InternalError|InternalFailure|ServiceUnavailable|RequestTimeout"
    r"|timeout while waiting|timed out|connection reset|i/o timeout",
    re.IGNORECASE,
)
"""Errors that may disappear if destroy is tried again after a sweep."""
REFUSED = re.compile(r"AccessDenied|UnauthorizedOperation|not authorized|is protected", re.IGNORECASE)
"""Errors that occur again at every try."""


@dataclass(frozen=True, slots=True)
class Destroyed:
    """The result of destroying an AWS stack."""

    removed: list[str]
    """Names of the resources that the engine removed."""
    swept: Swept
    found: Found
    """What is left, and what couldn't be checked."""


def destroy_local(stack: AtlasStack, settings: LocalSettings) -> list[str]:
    """Stop the processes that `up` started on this machine and remove what it created; returns the removed names."""
    removed = stack.destroy()
    # Processes that a killed `up` started before the engine could record them.
    left = Supervisord(REPOSITORY / settings.directory).end_orphans()
    if left:
        stack.say(f"  stopped {len(left)} processes that weren't in the state: {', '.join(map(str, left))}")
    return removed


def destroy_aws(
    stack: AtlasStack,
    settings: AwsSettings,
    *,
    ask: Callable[[int], None],
    tries: int,
    pause: int,
    forget_unreachable: bool,
) -> Destroyed:
    """Destroy the stack, sweep what AWS leaves behind, and check what is left.

    `ask` gets the number of resources, and raises when nobody agrees; `pause`: seconds between `tries`;
    `forget_unreachable`: if the cluster doesn't answer, only remove its objects from the state.
    Raises PreflightError when the stack is protected, or when its settings name another region or cluster than it has;
    FailedError when not everything could be deleted, CredentialsError when the credentials expired.
    """
    resources = stack.resources()
    check_place(stack.name, settings, resources)
    _refuse_protected(stack.name, resources)
    ask(len(resources))
    if stack.exists and forget_unreachable:
        stack.say(
            "atlas: if the cluster doesn't answer, its objects are only removed from the state, and its load balancers "
            "may be left"
        )
    # Before anything is deleted: after the deletion, the network can't be found by its tags.
    place = place_of(stack.name, settings, {str(made["id"]) for made in resources if made["type"] == "aws:ec2/vpc:Vpc"})
    stack.take_up(finder(place, stack.say))
    removed: list[str] = []
    swept = Swept()
    for left in reversed(range(tries)):
        try:
            removed += stack.destroy(forget_unreachable=forget_unreachable)
            break
        except FailedError as failed:
            text = "\n".join(failed.lines)
            if "unreachable" in text and "cluster" in text:
                failed.lines.append(
                    "the cluster doesn't answer: get access to it (VPN, atlas:apiAccessCidrs), or if it no longer "
                    f"exists, run `atlas destroy --stack {stack.name} --k8s-unreachable`"
                )
                raise
            if REFUSED.search(text) or not PASSING.search(text) or not left:
                raise
            stack.say(f"  not everything could be deleted: {failed.lines[0].splitlines()[0]}")
            stack.say(f"  sweeping, then trying again ({left} left)")
            _add(swept, sweep(place, stack.say, pause=pause))
            time.sleep(pause)
    _add(swept, sweep(place, stack.say, pause=pause))
    return Destroyed(removed, swept, look(place))


def _refuse_protected(stack: str, resources: Sequence[dict[str, Any]]) -> None:
    """Refuse to destroy a protected stack; the engine would delete everything except the protected resources."""
    protected = [name_of(str(made["urn"])) for made in resources if made.get("protect")]
    if protected:
        raise PreflightError(
            f"the stack {stack} is protected ({', '.join(protected)} would be deleted with all data): to delete it, "
            f"set `atlas:disposable: true` in Pulumi.{stack}.yaml, run `atlas up --stack {stack}`, then destroy"
        )


def _add(whole: Swept, part: Swept) -> None:
    whole.removed += part.removed
    whole.problems = part.problems  # each sweep tries again what an earlier sweep couldn't remove
