"""`atlas up`, `preview` and `refresh`: the stack as its settings say."""

import json
import os
import sys
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

import click
from pulumi import automation as auto

from infra.__main__ import program
from infra.cli.common import (
    Failed,
    answers,
    guarded,
    json_option,
    raise_reported,
    say,
    settings_of,
    stack_option,
    table,
)
from infra.engine.locks import take_up
from infra.engine.workspace import POLICIES, REPOSITORY, Progress, open_stack
from infra.preflight import PreflightError
from infra.settings import AwsSettings, LocalSettings, Settings


@dataclass(frozen=True, slots=True)
class Done:
    """What an `up` came to."""

    outputs: dict[str, Any]
    changes: dict[str, str]
    """Resource name -> operation, of those that changed."""
    example: dict[str, Any] | None
    """One prediction: its request and its answer; None when it failed, or wasn't asked for."""


@click.command()
@stack_option
@json_option
@click.option(
    "--wait", default=300, show_default=True, help="Seconds for a new load balancer's name to be known and to answer."
)
@click.option(
    "--smoke/--no-smoke",
    default=True,
    show_default=True,
    help="Ask for one prediction in the end; without an answer the exit status is 1.",
)
@click.option(
    "--rollback-on-failure",
    is_flag=True,
    help="AWS: when pods don't come up, or the prediction fails, go back to the last image that answered.",
)
@guarded
def up(stack: str, as_json: bool, wait: int, smoke: bool, rollback_on_failure: bool) -> None:
    """Make the stack as its settings say; ends with its addresses, and one prediction.

    Example: atlas up --stack local
    """
    settings = settings_of(stack)
    try:
        done = bring_up(stack, settings, wait=wait, smoke=smoke)
        if smoke and done.example is None:
            raise Failed([no_answer(stack, settings)])
    except (Failed, auto.CommandError) as error:
        if not rollback_on_failure or not isinstance(settings, AwsSettings):
            raise
        say(f"atlas: {error.lines[0] if isinstance(error, Failed) else 'the engine failed'}")
        # In a process of its own: a program that failed leaves the SDK's tasks behind, for which the next would wait.
        again = ["rollback", "--after-failure", "--yes", "--stack", stack, "--wait", str(wait)]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "infra.cli", *again])  # noqa: S606 - ourselves
    report(done, as_json=as_json)


def bring_up(stack: str, settings: Settings, *, wait: int, image: str | None = None, smoke: bool = True) -> Done:
    """Make the stack as its settings say, with `image` instead of the image they name; ask for a prediction.

    An image of an AWS stack that answers is marked as good. `wait` in seconds. Raises Failed with what the engine said.
    """
    opened = open_stack(stack, settings, lambda: program(image=image), REPOSITORY, say)
    progress = Progress(say)
    foreseen = Progress(lambda _: None)
    begun = time.monotonic()
    try:
        # On this machine refreshed first: what crashed, or was killed with the machine, is started again.
        local = isinstance(settings, LocalSettings)
        if not local:
            take_up(opened, say)
            # A breach of a policy is told before anything is made.
            opened.preview(on_event=foreseen, suppress_outputs=True, color="never", policy_packs=POLICIES)
        result = opened.up(
            refresh=local, on_event=progress, suppress_outputs=True, color="never", policy_packs=POLICIES
        )
    except auto.CommandError:
        raise_reported(foreseen)
        if isinstance(settings, AwsSettings) and any(
            "Deployment" in line or "pods" in line for line in progress.errors
        ):
            _say_why(settings)
        raise_reported(progress)
        raise
    outputs = {name: output.value for name, output in result.outputs.items()}
    changes = progress.changes
    say(f"{len(changes)} changed" if changes else "nothing changed" + f" ({time.monotonic() - begun:.1f} s)")
    answer = _example(str(outputs["service"]), patience=10 if local else wait) if smoke else None
    if answer is not None and not local:
        _mark(str(outputs["image"]))
    return Done(outputs, changes, answer)


def _say_why(settings: AwsSettings) -> None:
    """What the cluster knows of pods that don't come up: the engine only knows that they don't."""
    from infra.cluster_api import ClusterError, cluster_of, reasons

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
        request, body = done.example["request"], done.example["answer"]
        click.echo(f"\nA prediction, asked and answered just now:\n\n{request}\n\n{json.dumps(body, indent=1)}")


def no_answer(stack: str, settings: Settings) -> str:
    """What to say when everything is up and no prediction came."""
    if isinstance(settings, LocalSettings):
        return "everything is up, but the service gave no prediction: .atlas/local/service.log says why"
    return (
        "everything is up, but the service gave no prediction. Are you outside atlas:serviceCidrs? Then --no-smoke. "
        f"The image is bad? Then `atlas rollback --stack {stack}`"
    )


def _mark(reference: str) -> None:
    """Note that the image has answered; that this fails is said, and no more: the stack is up."""
    from infra.releases import image_of, mark_good

    image = image_of(reference)
    if image is None:
        return
    try:
        mark_good(image)
    except PreflightError as error:
        say(f"atlas: {error}; `atlas rollback` won't know this image")


@click.command()
@stack_option
@json_option
@guarded
def preview(stack: str, as_json: bool) -> None:
    """Show what `up` would change, and change nothing.

    Example: atlas preview --stack local
    """
    settings = settings_of(stack, shows=True)
    opened = open_stack(stack, settings, program, REPOSITORY, say)
    progress = Progress(lambda _: None)
    try:
        result = opened.preview(
            refresh=isinstance(settings, LocalSettings),
            diff=True,
            on_event=progress,
            on_output=None if as_json else lambda line: click.echo(line.rstrip("\n")),
            color="never",
            policy_packs=POLICIES,
        )
    except auto.CommandError:
        raise_reported(progress)
        raise
    summary = {str(getattr(op, "value", op)): count for op, count in result.change_summary.items()}
    if as_json:
        click.echo(json.dumps({"changes": summary, "resources": progress.changes}, indent=1))


@click.command()
@stack_option
@guarded
def refresh(stack: str) -> None:
    """Look at the world and adopt what is there: a dead process shows, and the next `up` starts it.

    Example: atlas refresh --stack local
    """
    settings = settings_of(stack)
    opened = open_stack(stack, settings, program, REPOSITORY, say)
    progress = Progress(lambda _: None)
    result = opened.refresh(on_event=progress, clear_pending_creates=True, suppress_outputs=True, color="never")
    changes = {str(getattr(op, "value", op)): count for op, count in (result.summary.resource_changes or {}).items()}
    gone = changes.get("delete", 0)
    click.echo(f"{gone} gone: `atlas up --stack {stack}` makes them again" if gone else "all as it should be")


def _example(address: str, *, patience: float) -> dict[str, Any] | None:
    """One prediction through the running service: the request as a curl command, and its real answer.

    `patience` in seconds: a new load balancer's name takes a while to be known.
    """
    deadline = time.monotonic() + patience
    while not answers(f"{address}/health/ready") and time.monotonic() < deadline:
        time.sleep(2)
    try:
        with urllib.request.urlopen(f"{address}/openapi.json", timeout=10) as response:  # noqa: S310 - our own service
            document = json.load(response)
        row = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
        # What must be given, and nothing else: short enough to type.
        required = document["components"]["schemas"]["Row"]["required"]
        body = json.dumps({"rows": [{name: row["rows"][0][name] for name in required} or row["rows"][0]]})
        request = urllib.request.Request(  # noqa: S310
            f"{address}/predict", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            answer = json.load(response)
    except (OSError, ValueError, KeyError) as error:
        say(f"atlas: the service is up but the example failed: {error}")
        return None
    quoted = body.replace("'", "'\\''")
    command = f"curl -s {address}/predict -H 'Content-Type: application/json' -d '{quoted}'"
    return {"request": command, "answer": answer}
