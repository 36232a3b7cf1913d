"""`atlas up`, `preview` and `refresh`: the stack as its settings say."""

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from pulumi import automation as auto

from infra.cli.common import (
    answers,
    guarded,
    json_option,
    say,
    settings_of,
    stack_option,
    table,
)
from infra.deployment.checks import check_zones
from infra.deployment.smoke import predict
from infra.engine.events import Events
from infra.engine.locks import take_up
from infra.engine.preview import Foreseen
from infra.engine.workspace import (
    POLICIES,
    REPOSITORY,
    deployment_of,
    find_stack,
    open_stack,
    outputs_of,
    resources_of,
)
from infra.errors import AwsError, ClusterError, FailedError, ImageError, SettingsError
from infra.names import IMAGE_TYPE, SERVICE_PORT, SERVICE_READY, image_repository
from infra.program import Facts, program
from infra.settings import AwsSettings, LocalSettings, Settings

UNREADABLE = {
    "**kubernetes:**": "objects in the cluster",
    "**::aws:secretsmanager/secretVersion:SecretVersion::**": "secrets' values",
    "**$aws:secretsmanager/secretVersion:SecretVersion::**": "secrets' values",
}
"""URNs, in the engine's patterns, of what the role that only reads has no way to -> what it is."""
CHANGES = 3
"""Exit status when there would be changes and none were expected."""


@dataclass(frozen=True, slots=True)
class Done:
    """What an `up` came to."""

    outputs: dict[str, Any]
    changes: dict[str, str]
    """Resource name -> operation, of those that changed."""
    example: dict[str, Any] | None
    """One prediction: its request and its answer; None when it failed, or wasn't asked for."""


wait_option = click.option(
    "--wait",
    default=300,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seconds for a new load balancer's name to be known and to answer.",
)
rollback_option = click.option(
    "--rollback-on-failure",
    is_flag=True,
    help="AWS: when pods don't come up, or the prediction fails, go back to the last image that answered.",
)


@click.command()
@stack_option
@json_option
@wait_option
@click.option(
    "--smoke/--no-smoke",
    default=True,
    show_default=True,
    help="Ask for one prediction in the end; without an answer the exit status is 1.",
)
@rollback_option
@guarded
def up(stack: str, as_json: bool, wait: int, smoke: bool, rollback_on_failure: bool) -> None:
    """Make the stack as its settings say; ends with its addresses, and one prediction.

    Example: atlas up --stack local
    """
    settings = settings_of(stack)
    with going_back(stack, settings, wait=wait, wanted=rollback_on_failure):
        done = bring_up(stack, settings, wait=wait, smoke=smoke)
        if smoke and done.example is None:
            raise FailedError([no_answer(stack, settings)])
    report(done, as_json=as_json)


@click.command()
@stack_option
@json_option
@wait_option
@rollback_option
@guarded
def smoke(stack: str, as_json: bool, wait: int, rollback_on_failure: bool) -> None:
    """Ask the running service for one prediction, as `up` does in the end; an image that answers is marked as good.

    Example: atlas smoke --stack dev
    """
    settings = settings_of(stack, makes=False)
    with going_back(stack, settings, wait=wait, wanted=rollback_on_failure):
        outputs = outputs_of(find_stack(stack, settings, program, REPOSITORY, say))
        if "service" not in outputs:
            raise SettingsError(_not_up(stack))
        example = _asked(settings, outputs, wait=wait)
        if example is None:
            raise FailedError([no_answer(stack, settings)])
    if as_json:
        click.echo(json.dumps(example, indent=1))
    else:
        _show(example)


@contextmanager
def going_back(stack: str, settings: Settings, *, wait: int, wanted: bool) -> Iterator[None]:
    """When what is inside fails and it is wanted: the last image that answered is deployed, and this process ends."""
    try:
        yield
    except (FailedError, auto.CommandError) as error:
        if not wanted or not isinstance(settings, AwsSettings):
            raise
        say(f"atlas: {error.lines[0] if isinstance(error, FailedError) else 'the engine failed'}")
        # In a process of its own: a program that failed leaves the SDK's tasks behind, for which the next would wait.
        again = ["rollback", "--after-failure", "--yes", "--stack", stack, "--wait", str(wait)]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "infra.cli", *again])  # noqa: S606 - ourselves


def bring_up(stack: str, settings: Settings, *, wait: int, image: str | None = None, smoke: bool = True) -> Done:
    """Make the stack as its settings say, with `image` instead of the image they name; ask for a prediction.

    An image of an AWS stack that answers is marked as good. `wait` in seconds. Raises FailedError with what the engine
    said, SettingsError when the stack's own repository lacks the image that the settings name.
    """
    if image is None and isinstance(settings, AwsSettings):
        _refuse_missing(stack, settings)
    opened = opened_for_change(stack, settings, lambda: program(Facts(image=image)))
    events, foreseen = Events(say), Events()
    begun = time.monotonic()
    try:
        # On this machine refreshed first: what crashed, or was killed with the machine, is started again.
        local = isinstance(settings, LocalSettings)
        if not local:
            take_up(opened, say)
            # A breach of a policy is told before anything is made.
            opened.preview(on_event=foreseen, suppress_outputs=True, color="never", policy_packs=POLICIES)
        result = opened.up(refresh=local, on_event=events, suppress_outputs=True, color="never", policy_packs=POLICIES)
    except auto.CommandError:
        foreseen.raise_errors()
        if isinstance(settings, AwsSettings) and any("Deployment" in line or "pods" in line for line in events.errors):
            _say_why(settings)
        events.raise_errors()
        raise
    outputs = {name: output.value for name, output in result.outputs.items()}
    changes = events.changes
    told = f"{len(changes)} changed" if changes else "nothing changed"
    say(f"{told} ({time.monotonic() - begun:.1f} s)")
    return Done(outputs, changes, _asked(settings, outputs, wait=wait) if smoke else None)


def opened_for_change(stack: str, settings: Settings, of: Callable[[], None]) -> auto.Stack:
    """The stack with this program, once it is sure that what is deployed can become what its settings say.

    Raises PreflightError when it can't.
    """
    opened = open_stack(stack, settings, of, REPOSITORY, say)
    if isinstance(settings, AwsSettings):
        check_zones(stack, settings, resources_of(opened))
    return opened


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


def _say_why(settings: AwsSettings) -> None:
    """What the cluster knows of pods that don't come up: the engine only knows that they don't."""
    from infra.deployment.pods import cluster_of, reasons

    try:
        with cluster_of(settings) as api:
            for line in reasons(api, settings.namespace, settings.app_name):
                say(f"  {line}")
    except ClusterError as error:
        say(f"  why the pods don't come up can't be asked: {error}")


def report(done: Done, *, as_json: bool) -> None:
    """The outputs, and the prediction."""
    if as_json:
        document = {"outputs": done.outputs, "changes": done.changes, "example": done.example}
        click.echo(json.dumps(document, indent=1))
        return
    table(done.outputs)
    if done.example is not None:
        _show(done.example)


def _show(example: Mapping[str, Any]) -> None:
    request, body = example["request"], example["answer"]
    click.echo(f"\nA prediction, asked and answered just now:\n\n{request}\n\n{json.dumps(body, indent=1)}")


def _not_up(stack: str) -> str:
    return f"the stack {stack} is not up: `atlas up --stack {stack}` makes it"


def no_answer(stack: str, settings: Settings) -> str:
    """What to say when everything is up and no prediction came."""
    if isinstance(settings, LocalSettings):
        return f"everything is up, but the service gave no prediction: `atlas logs --stack {stack}` says why"
    return (
        "everything is up, but the service gave no prediction. Are you outside atlas:serviceCidrs? Then --no-smoke. "
        f"The image is bad? Then `atlas rollback --stack {stack}`"
    )


def _asked(settings: Settings, outputs: Mapping[str, Any], *, wait: int) -> dict[str, Any] | None:
    """One prediction, its request and its answer; None when there was none. AWS: an image that answers is marked."""
    local = isinstance(settings, LocalSettings)
    example = _example(str(outputs["service"]), settings, patience=10 if local else wait)
    if example is not None and not local:
        _mark(str(outputs["image"]))
    return example


def _mark(reference: str) -> None:
    """Note that the image has answered; that this fails is said, and no more: the stack is up."""
    from infra.deployment.images import image_of, mark_good

    image = image_of(reference)
    if image is None:
        return
    try:
        mark_good(image)
    except (AwsError, ImageError) as error:
        say(f"atlas: {error}; `atlas rollback` won't know this image")


@click.command()
@stack_option
@json_option
@click.option("--refresh", "look", is_flag=True, help="Ask the world first what is there; local stacks always do.")
@click.option(
    "--deployed", is_flag=True, help="AWS: with the image that the stack runs, instead of one built from this checkout."
)
@click.option(
    "--reader",
    is_flag=True,
    help="AWS: leave out what a role that only reads can't look at: objects in the cluster, and secrets' values.",
)
@click.option("--expect-no-changes", is_flag=True, help="Exit status 3 when there would be any.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the JSON document to this file, too; also when the preview fails.",
)
@guarded
def preview(
    stack: str, as_json: bool, look: bool, deployed: bool, reader: bool, expect_no_changes: bool, save: Path | None
) -> None:
    """Show what `up` would change, and change nothing.

    Example: atlas preview --stack local
    """
    settings = settings_of(stack, makes=not deployed, shows=True)
    image: str | None = None
    kept: frozenset[str] = frozenset()
    if deployed and isinstance(settings, AwsSettings):
        image, _ = deployment_of(find_stack(stack, settings, program, REPOSITORY, say))
        if image is None:
            say(f"{stack} isn't deployed: there is nothing to compare")
            _save(save, Foreseen(stack))
            return
        # What built the image isn't declared beside it; it goes from the record alone, and only at an `up` like this.
        kept = frozenset({"docker-build:index:Image", IMAGE_TYPE})
    opened = opened_for_change(stack, settings, lambda: program(Facts(image=image)))
    foreseen = Foreseen(stack, kept=kept)
    failed = False
    try:
        opened.preview(
            refresh=look or isinstance(settings, LocalSettings),
            diff=True,
            exclude=list(UNREADABLE) if reader else None,
            on_event=foreseen.events,
            on_output=lambda line: _shown(foreseen, line, quiet=as_json),
            color="never",
            policy_packs=POLICIES,
        )
    except auto.CommandError:
        failed = True
        if not foreseen.events.errors:
            raise
    if reader:
        foreseen.unseen = list(UNREADABLE.values())
    elif isinstance(settings, AwsSettings) and not failed:
        foreseen.cluster = _client_side(settings, foreseen)
    _save(save, foreseen)
    if failed:
        raise FailedError(foreseen.events.errors)
    if as_json:
        click.echo(json.dumps(foreseen.document(), indent=1))
    elif foreseen.cluster:
        say(f"Kubernetes objects are compared with the state, not with the cluster: {foreseen.cluster}")
    if expect_no_changes and foreseen.steps:
        say(f"atlas: {stack} isn't as it was deployed: {', '.join(sorted({step.name for step in foreseen.steps}))}")
        sys.exit(CHANGES)


def _save(file: Path | None, foreseen: Foreseen) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(foreseen.document(), indent=1))


def _shown(foreseen: Foreseen, line: str, *, quiet: bool) -> None:
    foreseen.said(line)
    if not quiet:
        click.echo(line.rstrip("\n"))


def _client_side(settings: AwsSettings, foreseen: Foreseen) -> str:
    """Why the engine could compare Kubernetes objects only with the state: its provider asks the cluster by a patch."""
    if not any(step.kind.startswith("kubernetes:") and step.operation != "create" for step in foreseen.steps):
        return ""
    from infra.deployment.pods import cluster_of, may_patch

    try:
        with cluster_of(settings) as api:
            return "" if may_patch(api, settings.namespace) else "this caller may not change anything in the cluster"
    except ClusterError as error:
        return str(error)


@click.command()
@stack_option
@json_option
@guarded
def refresh(stack: str, as_json: bool) -> None:
    """Look at the world and adopt what is there: a dead process shows, and the next `up` starts it.

    Example: atlas refresh --stack local
    """
    settings = settings_of(stack)
    opened = find_stack(stack, settings, program, REPOSITORY, say)
    if opened is None:
        raise SettingsError(_not_up(stack))
    result = opened.refresh(clear_pending_creates=True, suppress_outputs=True, color="never")
    changes = {str(getattr(op, "value", op)): count for op, count in (result.summary.resource_changes or {}).items()}
    gone = changes.get("delete", 0)
    if as_json:
        click.echo(json.dumps({"gone": gone, "changes": changes}, indent=1))
        return
    click.echo(f"{gone} gone: `atlas up --stack {stack}` makes them again" if gone else "all as it should be")


def _example(address: str, settings: Settings, *, patience: float) -> dict[str, Any] | None:
    """One prediction through the running service: the request as a curl command, and its real answer.

    Where the load balancer can't be reached from here (atlas:serviceCidrs), a pod is asked through the cluster's API.
    `patience` in seconds: a new load balancer's name takes a while to be known.
    """
    deadline = time.monotonic() + patience
    while not (reached := answers(f"{address}{SERVICE_READY}")) and time.monotonic() < deadline:
        time.sleep(2)
    host, port = urlsplit(address).hostname or "", urlsplit(address).port or 80
    try:
        if reached or isinstance(settings, LocalSettings):
            body, answer = predict(lambda: http.client.HTTPConnection(host, port, timeout=10))
        else:
            body, answer = _through_the_cluster(settings)
            say(f"{address} doesn't answer here (are you outside atlas:serviceCidrs?), but a pod does, asked directly")
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        say(f"atlas: the service is up but the example failed: {error}")
        return None
    except ClusterError as error:
        say(f"atlas: {address} doesn't answer, and a pod can't be asked: {error}")
        return None
    quoted = body.replace("'", "'\\''")
    command = f"curl -s {address}/predict -H 'Content-Type: application/json' -d '{quoted}'"
    return {"request": command, "answer": answer}


def _through_the_cluster(settings: AwsSettings) -> tuple[str, Any]:
    """The example's request and answer, of a pod; raises ClusterError when none can be asked."""
    from infra.deployment.pods import cluster_of, tunnel

    def connected(api: Any, open_tunnels: ExitStack) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("pod", timeout=10)
        connection.sock = open_tunnels.enter_context(tunnel(api, settings.namespace, settings.app_name, SERVICE_PORT))
        return connection

    with cluster_of(settings) as api, ExitStack() as tunnels:
        return predict(lambda: connected(api, tunnels))
