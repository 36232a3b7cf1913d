"""`atlas up`, `preview` and `refresh`: the stack as its settings say."""

import json
import time
import urllib.request
from typing import Any

import click
from pulumi import automation as auto

from infra.__main__ import program
from infra.cli.common import answers, guarded, json_option, raise_reported, say, settings_of, stack_option, table
from infra.engine.locks import take_up
from infra.engine.workspace import POLICIES, REPOSITORY, Progress, open_stack
from infra.settings import AwsSettings, LocalSettings


@click.command()
@stack_option
@json_option
@click.option(
    "--wait", default=300, show_default=True, help="Seconds for a new load balancer's name to be known and to answer."
)
@guarded
def up(stack: str, as_json: bool, wait: int) -> None:
    """Make the stack as its settings say; ends with its addresses, and one prediction.

    Example: atlas up --stack local
    """
    settings = settings_of(stack)
    opened = open_stack(stack, settings, program, REPOSITORY, say)
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
        raise_reported(progress)
        raise
    outputs = {name: output.value for name, output in result.outputs.items()}
    changes = progress.changes
    say(f"{len(changes)} changed" if changes else "nothing changed" + f" ({time.monotonic() - begun:.1f} s)")
    answer = _example(str(outputs["service"]), patience=wait if isinstance(settings, AwsSettings) else 10)
    if as_json:
        click.echo(json.dumps({"outputs": outputs, "changes": changes, "example": answer}, indent=1))
        return
    table(outputs)
    if answer is not None:
        request, body = answer["request"], answer["answer"]
        click.echo(f"\nA prediction, asked and answered just now:\n\n{request}\n\n{json.dumps(body, indent=1)}")


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
