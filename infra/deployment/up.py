"""What an `up` is: what must hold, what policies say, the engine's work, a prediction, and the way back."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pulumi import automation as auto

from infra.deployment.checks import check_zones
from infra.deployment.smoke import no_answer, smoke_test
from infra.engine.events import Events
from infra.engine.stack import AtlasStack, Program
from infra.errors import ClusterError, FailedError, SettingsError
from infra.names import image_repository
from infra.program import Facts, program
from infra.settings import AwsSettings, LocalSettings


@dataclass(frozen=True, slots=True)
class Done:
    """What an `up` came to."""

    outputs: dict[str, Any]
    changes: dict[str, str]
    """Resource name -> operation, of those that changed."""
    example: dict[str, Any] | None
    """One prediction: its request and its answer; None when it failed, or wasn't asked for."""


def up(stack: AtlasStack, *, wait: int, image: str | None = None, smoke: bool = True, go_back: bool = False) -> Done:
    """Make the stack as its settings say, with `image` instead of the image they name; it must give a prediction.

    `wait`: seconds for a new load balancer to answer; `smoke`: without it no prediction is asked for; `go_back`: when
    that fails, this process goes on as the rollback to the last image that answered.
    Raises FailedError with what the engine said, or when there is no prediction; SettingsError when the stack's own
    repository lacks the image that the settings name; PreflightError when what is deployed can't become so.
    """
    with _going_back(stack, wait=wait, wanted=go_back):
        done = bring_up(stack, wait=wait, image=image, smoke=smoke)
        if smoke and done.example is None:
            raise FailedError([no_answer(stack)])
    return done


def ask(stack: AtlasStack, *, wait: int, go_back: bool = False) -> dict[str, Any]:
    """One prediction of the stack that is up: its request and its answer, as at the end of `up`.

    Raises FailedError when there is none, SettingsError when the stack isn't up.
    """
    with _going_back(stack, wait=wait, wanted=go_back):
        outputs = stack.outputs()
        if "service" not in outputs:
            raise SettingsError(not_up(stack))
        example = smoke_test(stack, outputs, wait=wait)
        if example is None:
            raise FailedError([no_answer(stack)])
    return example


def bring_up(stack: AtlasStack, *, wait: int, image: str | None = None, smoke: bool = True) -> Done:
    """As `up`, but a prediction that fails is no error. An image of an AWS stack that answers is marked as good."""
    if image is None and isinstance(stack.settings, AwsSettings):
        _refuse_missing(stack.name, stack.settings)
    open_for_change(stack)
    declare = program_with(image)
    begun = time.monotonic()
    # On this machine refreshed first: what crashed, or was killed with the machine, is started again.
    local = isinstance(stack.settings, LocalSettings)
    if not local:
        stack.take_up()
        # A breach of a policy is told before anything is made.
        stack.preview(declare, Events())
    try:
        outputs, changes = stack.up(declare, refresh=local)
    except FailedError as failed:
        if isinstance(stack.settings, AwsSettings) and any(
            "Deployment" in line or "pods" in line for line in failed.lines
        ):
            _say_why(stack, stack.settings)
        raise
    told = f"{len(changes)} changed" if changes else "nothing changed"
    stack.say(f"{told} ({time.monotonic() - begun:.1f} s)")
    return Done(outputs, changes, smoke_test(stack, outputs, wait=wait) if smoke else None)


def open_for_change(stack: AtlasStack) -> None:
    """Make the stack if need be, once it is sure that what is deployed can become what its settings say.

    Raises PreflightError when it can't.
    """
    stack.open()
    if isinstance(stack.settings, AwsSettings):
        check_zones(stack.name, stack.settings, stack.resources())


def program_with(image: str | None) -> Program:
    """The program that deploys `image`; with None, the image that the settings name."""
    return lambda: program(Facts(image=image))


def not_up(stack: AtlasStack) -> str:
    """What to say of a stack that must be up and isn't."""
    return f"the stack {stack.name} is not up: `atlas up --stack {stack.name}` makes it"


@contextmanager
def _going_back(stack: AtlasStack, *, wait: int, wanted: bool) -> Iterator[None]:
    """When what is inside fails and it is wanted: the last image that answered is deployed, and this process ends."""
    try:
        yield
    except (FailedError, auto.CommandError) as error:
        if not wanted or not isinstance(stack.settings, AwsSettings):
            raise
        stack.say(f"atlas: {error.lines[0] if isinstance(error, FailedError) else 'the engine failed'}")
        # In a process of its own: a program that failed leaves the SDK's tasks behind, for which the next would wait.
        again = ["rollback", "--after-failure", "--yes", "--stack", stack.name, "--wait", str(wait)]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "infra.cli", *again])  # noqa: S606 - ourselves


def _refuse_missing(stack: str, settings: AwsSettings) -> None:
    """Pods would wait for an image that isn't there; what is in other repositories may be hidden from who asks."""
    from infra.deployment.images import image_of, is_there

    image = image_of(settings.image or "")
    own = (settings.region, image_repository(stack, settings.app_name))
    if image is None or (image.region, image.repository) != own:
        return
    if not is_there(image):
        raise SettingsError(
            f"{image.repository} has no {image.digest}, which atlas:image in Pulumi.{stack}.yaml names: nothing is made"
        )


def _say_why(stack: AtlasStack, settings: AwsSettings) -> None:
    """What the cluster knows of pods that don't come up: the engine only knows that they don't."""
    from infra.deployment.pods import cluster_of, reasons

    try:
        with cluster_of(settings) as api:
            for line in reasons(api, settings.namespace, settings.app_name):
                stack.say(f"  {line}")
    except ClusterError as error:
        stack.say(f"  why the pods don't come up can't be asked: {error}")
