"""`atlas up`, `check`, `smoke`, `preview` and `refresh`: deploy a stack as its settings say, or check it."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infra.bundle import refusal
from infra.cli.common import deploys_bundle, guarded, json_option, say, settings_of, stack_of, stack_option, table
from infra.deployment import checks
from infra.deployment import up as deployment
from infra.deployment.by_hand import described
from infra.deployment.preview import Foreseen, foresee
from infra.engine.stack import AtlasStack
from infra.engine.workspace import REPOSITORY, stack_settings
from infra.errors import AtlasError, SettingsError
from infra.local.machine import look as look_around
from infra.settings import AwsSettings, LocalSettings

CHANGES = 3
"""Exit status if there would be changes, but none were expected."""

wait_option = click.option(
    "--wait",
    default=300,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seconds to wait until a new load balancer's name resolves and the service answers.",
)
offline_option = click.option(
    "--offline", is_flag=True, help="Local: download and build nothing; use the Prometheus and Grafana that are there."
)
rollback_option = click.option(
    "--rollback-on-failure",
    is_flag=True,
    help="AWS: if pods don't become ready, or the prediction fails, deploy the last good image again.",
)


@click.command()
@stack_option
@offline_option
@guarded
def check(stack: str, offline: bool) -> None:
    """Check whether `up` can start: the settings; local: the ports; AWS: credentials, tools, who may enter.

    On a local stack it also puts Prometheus and Grafana in place. `make up` does this before the pipeline runs.

    Example: atlas check --stack local
    """
    settings = stack_settings(stack, REPOSITORY)
    if isinstance(settings, AwsSettings):
        checks.check(settings, changes=True)
    elif isinstance(settings, LocalSettings):
        look_around(settings, REPOSITORY, say, install=not offline)


@click.command()
@stack_option
@json_option
@wait_option
@click.option(
    "--smoke/--no-smoke",
    default=True,
    show_default=True,
    help="Request a prediction at the end; if there is no answer, the exit status is 1.",
)
@rollback_option
@offline_option
@guarded
def up(stack: str, as_json: bool, wait: int, smoke: bool, rollback_on_failure: bool, offline: bool) -> None:
    """Deploy the stack as its settings say; ends with its addresses and a prediction.

    Example: atlas up --stack local
    """
    settings = settings_of(stack)
    opened = AtlasStack(stack, settings, say)
    done = deployment.up(opened, wait=wait, smoke=smoke, go_back=rollback_on_failure, offline=offline)
    report(done, as_json=as_json)
    if deploys_bundle(settings):
        for number, line in enumerate(refusal(REPOSITORY, REPOSITORY / settings.bundle)):
            click.echo(line if number else f"\n{line}", err=True)


@click.command()
@stack_option
@json_option
@wait_option
@rollback_option
@guarded
def smoke(stack: str, as_json: bool, wait: int, rollback_on_failure: bool) -> None:
    """Request a prediction from the running service, as `up` does at the end; an image that answers is marked as good.

    Example: atlas smoke --stack dev
    """
    example = deployment.ask(stack_of(stack, makes=False), wait=wait, go_back=rollback_on_failure)
    if as_json:
        click.echo(json.dumps(example, indent=1))
    else:
        _show(example)


def report(done: deployment.Done, *, as_json: bool) -> None:
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
    what = "A prediction" if "predictions" in body else "A request without an API key"
    click.echo(f"\n{what}, asked and answered just now:\n\n{request}\n\n{json.dumps(body, indent=1)}")


@click.command()
@stack_option
@json_option
@click.option(
    "--refresh", "look", is_flag=True, help="First read the real state of all resources; local stacks always do this."
)
@click.option(
    "--deployed", is_flag=True, help="AWS: use the image that the stack runs, instead of an image from this checkout."
)
@click.option(
    "--reader",
    is_flag=True,
    help="AWS: leave out what a read-only role can't read: objects in the cluster, and values of secrets.",
)
@click.option("--expect-no-changes", is_flag=True, help="Exit status 3 if there would be changes.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Also write the JSON document to this file, even if the preview fails.",
)
@guarded
def preview(
    stack: str, as_json: bool, look: bool, deployed: bool, reader: bool, expect_no_changes: bool, save: Path | None
) -> None:
    """Show what `up` would change, without changing anything.

    Example: atlas preview --stack local
    """
    foreseen = Foreseen(stack)
    try:
        compared = foresee(
            stack_of(stack, makes=not deployed, shows=True),
            foreseen,
            look=look,
            deployed=deployed,
            reader=reader,
            show=_ignore if as_json else click.echo,
        )
    except AtlasError:
        if foreseen.events.errors:  # otherwise there was no preview
            _save(save, foreseen)
        raise
    _save(save, foreseen)
    if not compared:
        return
    if as_json:
        click.echo(json.dumps(foreseen.document(), indent=1))
    else:
        for step in foreseen.by_hand:
            say(described(step))
        if foreseen.cluster:
            say(f"Kubernetes objects are compared with the state, not with the cluster: {foreseen.cluster}")
    differing = {step.name for step in (*foreseen.steps, *foreseen.by_hand)}
    if expect_no_changes and differing:
        say(f"atlas: {stack} isn't as it was deployed: {', '.join(sorted(differing))}")
        sys.exit(CHANGES)


def _ignore(_: str) -> None:
    pass


def _save(file: Path | None, foreseen: Foreseen) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(foreseen.document(), indent=1))


@click.command()
@stack_option
@json_option
@guarded
def refresh(stack: str, as_json: bool) -> None:
    """Read the real state of all resources into Pulumi's state; the next `up` then repairs differences.

    Example: atlas refresh --stack local
    """
    opened = stack_of(stack)
    if not opened.exists:
        raise SettingsError(deployment.not_up(opened))
    changes = opened.refresh()
    gone, differ = changes.get("delete", 0), changes.get("update", 0)
    if as_json:
        click.echo(json.dumps({"gone": gone, "changes": changes}, indent=1))
    elif gone:
        click.echo(f"{gone} gone: `atlas up --stack {stack}` makes them again")
    elif differ:
        click.echo(f"{differ} changed: `atlas preview --stack {stack}` shows what `up` sets back")
    else:
        click.echo("all as it should be")
