"""`up`: checks, policies, the engine's work, a prediction, and the rollback if it fails."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pulumi import automation as auto

from infra.deployment.by_hand import changed_by_hand, described, remedy
from infra.deployment.checks import check_unchanged
from infra.deployment.smoke import no_answer, smoke_test
from infra.engine.events import Events
from infra.engine.stack import AtlasStack, Program
from infra.engine.unrecorded import Find
from infra.errors import ClusterError, FailedError, SettingsError
from infra.local.machine import Machine, look
from infra.program import REPOSITORY, Facts, program
from infra.settings import AwsSettings, LocalSettings


@dataclass(frozen=True, slots=True)
class Done:
    """The result of an `up`."""

    outputs: dict[str, Any]
    changes: dict[str, str]
    """Resource name -> operation, for the resources that changed."""
    example: dict[str, Any] | None
    """A prediction: its request and its answer; None if it failed, or wasn't requested."""


def up(
    stack: AtlasStack,
    *,
    wait: int,
    image: str | None = None,
    smoke: bool = True,
    go_back: bool = False,
    offline: bool = False,
) -> Done:
    """Deploy the stack as its settings say, and request a prediction; `image` overrides the settings' image.

    `wait`: seconds for a new load balancer to answer; `smoke`: whether to request a prediction; `go_back`: if that
    fails, this process becomes the rollback to the last good image; `offline`: a local stack downloads nothing.
    Raises FailedError with what the engine reported, or when there is no prediction; SettingsError when the settings'
    image isn't in the stack's own repository; PreflightError when the deployed stack can't be changed to the settings.
    """
    with _going_back(stack, wait=wait, wanted=go_back):
        done = bring_up(stack, wait=wait, image=image, smoke=smoke, offline=offline)
        if smoke and done.example is None:
            raise FailedError([no_answer(stack)])
    return done


def ask(stack: AtlasStack, *, wait: int, go_back: bool = False) -> dict[str, Any]:
    """A prediction from the deployed stack: its request and its answer, as at the end of `up`.

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


def bring_up(
    stack: AtlasStack, *, wait: int, image: str | None = None, smoke: bool = True, offline: bool = False
) -> Done:
    """Like `up`, but a failed prediction isn't an error. On AWS stacks, an image that answers is marked as good."""
    aws = stack.settings if isinstance(stack.settings, AwsSettings) else None
    if image is None and aws is not None:
        from infra.deployment.images import refuse_missing  # half a second of imports, which only AWS stacks need

        refuse_missing(stack.name, aws)
    declare = program_for(stack, image, install=not offline)
    open_for_change(stack)
    if aws is not None:
        _check_account(stack, aws)
    begun = time.monotonic()
    if aws is not None:
        stack.take_up(_finder(stack, aws))
        _look_at_cluster(stack)
        keep_pods(stack, aws)
        # So a policy violation is reported before anything is created.
        stack.preview(declare, Events())
    try:
        # A local stack is refreshed first, so that processes that crashed or ended with the machine start again.
        outputs, changes = stack.up(declare, refresh=aws is None)
    except FailedError as failed:
        if aws is not None and any("Deployment" in line or "pods" in line for line in failed.lines):
            _say_why(stack, aws)
        if told := remedy(stack.name, failed.lines):
            stack.say(f"  {told}")
        raise
    told = f"{len(changes)} changed" if changes else "nothing changed"
    stack.say(f"{told} ({time.monotonic() - begun:.1f} s)")
    example = smoke_test(stack, outputs, wait=wait) if smoke else None
    if aws is not None and smoke and "featureStore" in outputs:
        tell_materializer(stack, aws)
    return Done(outputs, changes, example)


def open_for_change(stack: AtlasStack) -> None:
    """Create the stack if necessary, and check that the deployed stack can be changed to its settings.

    Raises PreflightError when it can't.
    """
    stack.open()
    if isinstance(stack.settings, AwsSettings):
        check_unchanged(stack.name, stack.settings, stack.resources())


def program_for(stack: AtlasStack, image: str | None, *, install: bool = False) -> Program:
    """The program that deploys `image` (None: the settings' image), with what it must know about this machine.

    `install`: on a local stack, put Prometheus and Grafana in place if necessary.
    Raises LocalError when the stack can't be deployed on this machine.
    """
    machine = Machine()
    if isinstance(stack.settings, LocalSettings):
        machine = look(stack.settings, REPOSITORY, stack.say, install=install)
    return lambda: program(Facts(image=image, machine=machine))


def not_up(stack: AtlasStack) -> str:
    """The message for a stack that isn't deployed but must be."""
    return f"the stack {stack.name} is not up: `atlas up --stack {stack.name}` creates it"


@contextmanager
def _going_back(stack: AtlasStack, *, wait: int, wanted: bool) -> Iterator[None]:
    """If the code inside fails and `wanted` is true, this process becomes the rollback to the last good image."""
    try:
        yield
    except (FailedError, auto.CommandError) as error:
        if not wanted or not isinstance(stack.settings, AwsSettings):
            raise
        stack.say(f"atlas: {error.lines[0] if isinstance(error, FailedError) else 'the engine failed'}")
        # By exec, because a failed Pulumi program leaves the SDK's tasks behind, and the next program would wait for
        # them.
        again = ["rollback", "--after-failure", "--yes", "--stack", stack.name, "--wait", str(wait)]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "infra.cli", *again])  # noqa: S606 - ourselves


def _check_account(stack: AtlasStack, settings: AwsSettings) -> None:
    # Imported here, because local stacks don't need boto3, whose import is slow.
    from infra.deployment.account import check_account

    for line in check_account(stack.name, settings):
        stack.say(f"  {line}")


def _finder(stack: AtlasStack, settings: AwsSettings) -> Find:
    """Looks in AWS for what a killed run created."""
    from infra.leftovers.place import Place
    from infra.leftovers.unrecorded import finder

    return finder(Place.of(stack.name, settings), stack.say)


def _look_at_cluster(stack: AtlasStack) -> None:
    """Record what was changed by hand in the cluster, so that this `up` sets it back, and print it."""
    differing, unknown = changed_by_hand(stack, save=True)
    for step in differing:
        stack.say(f"  {described(step)}")
    if unknown:
        stack.say(f"  the cluster can't be compared with what was deployed: {unknown}")


def keep_pods(stack: AtlasStack, settings: AwsSettings) -> None:
    """If this `up` gives the stack an autoscaler: keep the pods that there are until it decides."""
    found = stack.deployment()
    if not settings.autoscaled or found is None or found["inputs"]["spec"].get("replicas") is None:
        return
    # Imported only where they are needed: Kubernetes's client takes a while.
    from infra.deployment.autoscaling import hand_over
    from infra.deployment.pods import cluster_of

    named = found["inputs"]["metadata"]
    try:
        with cluster_of(settings) as api:
            hand_over(api, named["namespace"], named["name"])
    except ClusterError as error:
        stack.say(f"  the autoscaler begins with a single pod, because the cluster can't be asked: {error}")


def tell_materializer(stack: AtlasStack, settings: AwsSettings) -> None:
    """Wait until the feature store is written, and print a line. If it isn't, that is no failure of `up`: the service
    predicts without it."""
    # Imported here, because local stacks don't need boto3, whose import is slow.
    from infra.deployment.health import UNWRITTEN, materializer_health
    from infra.deployment.pods import cluster_of

    deadline = time.monotonic() + settings.rollout_seconds
    try:
        with cluster_of(settings) as api:
            # What is wrong is told at once; a pod that only starts, or writes for the first time, has no reasons yet.
            while (health := materializer_health(api, settings)) is not None and (
                not health.healthy and health.what == UNWRITTEN and time.monotonic() < deadline
            ):
                time.sleep(2)
    except ClusterError as error:
        stack.say(f"  the materialiser can't be asked: {error}")
        return
    if health is None:
        return
    # Nobody knows what an image that exists already contains.
    unwanted = not health.healthy and settings.image is not None
    remedy = "; if the image's model has no feature views, set atlas:featureStore: false" if unwanted else ""
    stack.say(f"  materialiser: {health.what}{remedy}")


def _say_why(stack: AtlasStack, settings: AwsSettings) -> None:
    """Print the cluster's reasons why pods don't become ready; the engine doesn't know them."""
    from infra.deployment.pods import cluster_of, reasons

    try:
        with cluster_of(settings) as api:
            for line in reasons(api, settings.namespace, settings.app_name):
                stack.say(f"  {line}")
    except ClusterError as error:
        stack.say(f"  the cluster can't be asked why the pods don't become ready: {error}")
