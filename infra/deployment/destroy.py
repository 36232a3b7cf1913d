"""Back to nothing: the engine's destroy, tried again after sweeps, and the look that nothing is left."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from infra.engine.events import name_of
from infra.engine.stack import AtlasStack
from infra.errors import FailedError, PreflightError
from infra.leftovers.look import Found, look
from infra.leftovers.place import place_of
from infra.leftovers.sweep import Swept, sweep
from infra.local.supervisor import Supervisord
from infra.program import REPOSITORY
from infra.settings import AwsSettings, LocalSettings

PASSING = re.compile(
    r"Throttl|RequestLimitExceeded|TooManyRequests|Rate exceeded|SlowDown|DependencyViolation|ResourceInUse"
    r"|BucketNotEmpty|OperationAborted|InternalError|InternalFailure|ServiceUnavailable|RequestTimeout"
    r"|timeout while waiting|timed out|connection reset|i/o timeout",
    re.IGNORECASE,
)
"""Errors that another try, after a sweep, may not meet again."""
REFUSED = re.compile(r"AccessDenied|UnauthorizedOperation|not authorized|is protected", re.IGNORECASE)
"""Errors that every try would meet again."""


@dataclass(frozen=True, slots=True)
class Destroyed:
    """What a destroy of an AWS stack came to."""

    removed: list[str]
    """Names of what the engine removed."""
    swept: Swept
    found: Found
    """What is left, and what couldn't be looked at."""


def destroy_local(stack: AtlasStack, settings: LocalSettings) -> list[str]:
    """Stop all that `up` started on this machine and remove what it made; the names of what was removed."""
    removed = stack.destroy()
    # What a killed `up` started before the engine could note it.
    left = Supervisord(REPOSITORY / settings.directory).end_orphans()
    if left:
        stack.say(f"  ended {len(left)} processes that no run had noted: {', '.join(map(str, left))}")
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
    """Take the stack down, sweep what AWS leaves behind, and look what is left.

    `ask` is told how many resources there are, and raises when nobody agrees; `pause`: seconds between `tries`;
    `forget_unreachable`: what is in a cluster that doesn't answer is forgotten.
    Raises PreflightError when the stack is protected, FailedError when not all could go, CredentialsError when the
    credentials ended.
    """
    resources = stack.resources()
    _refuse_protected(stack.name, resources)
    ask(len(resources))
    if stack.exists and forget_unreachable:
        stack.say(
            "atlas: if the cluster doesn't answer, what is in it is forgotten; load balancers it made may be left"
        )
    stack.take_up()
    # Asked before anything goes: afterwards the network's tags are gone.
    place = place_of(stack.name, settings, {str(made["id"]) for made in resources if made["type"] == "aws:ec2/vpc:Vpc"})
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
                    "the cluster doesn't answer: reach it (VPN, atlas:apiAccessCidrs), or when it is gone "
                    f"`atlas destroy --stack {stack.name} --k8s-unreachable`"
                )
                raise
            if REFUSED.search(text) or not PASSING.search(text) or not left:
                raise
            stack.say(f"  not all could go: {failed.lines[0].splitlines()[0]}")
            stack.say(f"  sweeping, then trying again ({left} left)")
            _add(swept, sweep(place, stack.say, pause=pause))
            time.sleep(pause)
    _add(swept, sweep(place, stack.say, pause=pause))
    return Destroyed(removed, swept, look(place))


def _refuse_protected(stack: str, resources: Sequence[dict[str, Any]]) -> None:
    """A protected stack is refused whole; the engine would first take down all around what is protected."""
    protected = [name_of(str(made["urn"])) for made in resources if made.get("protect")]
    if protected:
        raise PreflightError(
            f"the stack {stack} is protected ({', '.join(protected)} would be deleted with all data): to go on, say "
            f"`atlas:disposable: true` in Pulumi.{stack}.yaml, `atlas up --stack {stack}`, then destroy"
        )


def _add(whole: Swept, part: Swept) -> None:
    whole.removed += part.removed
    whole.problems = part.problems  # those of an earlier sweep are tried again
