"""`atlas destroy`: removes a stack, and checks that nothing is left."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from infra.cli.common import guarded, json_option, say, stack_of, stack_option
from infra.deployment.destroy import Destroyed, destroy_aws, destroy_local
from infra.errors import ConfirmationError, SettingsError
from infra.settings import AwsSettings, LocalSettings

KEPT = "data/, models/, .atlas/mlflow and .atlas/dvc-remote stay"
LEFT = 3
"""Exit status if something is left, or if this couldn't be checked."""


@click.command()
@stack_option
@json_option
@click.option("--yes", is_flag=True, help="Don't ask for confirmation; required without a terminal.")
@click.option("--confirm", default=None, metavar="STACK", help="Instead of --yes: the stack's name, typed again.")
@click.option("--tries", default=3, show_default=True, type=click.IntRange(1, 10), help="Maximum number of tries.")
@click.option("--pause", default=20, show_default=True, type=click.IntRange(0, 600), help="Seconds between tries.")
@click.option(
    "--k8s-unreachable",
    is_flag=True,
    help="If the cluster no longer answers, remove its objects from the state; its load balancers may be left.",
)
@click.option("--remove-stack", is_flag=True, help="If nothing is left, also remove the stack's record.")
@guarded
def destroy(
    stack: str,
    as_json: bool,
    yes: bool,
    confirm: str | None,
    tries: int,
    pause: int,
    k8s_unreachable: bool,
    remove_stack: bool,
) -> None:
    """Remove everything that `up` created, delete what AWS leaves behind, and check that nothing is left.

    On the local stack, data, models and MLflow's records are kept. Exit status: 0 nothing is left; 1 it failed, run it
    again; 3 something is left or couldn't be checked, each is listed with its remedy.

    Example: atlas destroy --stack dev
    """
    if confirm is not None and confirm != stack:
        raise SettingsError(f"--confirm says {confirm!r}, the stack is {stack!r}: nothing is destroyed")
    opened = stack_of(stack, makes=False)
    clean = True
    if isinstance(opened.settings, LocalSettings):
        _tell_local(destroy_local(opened, opened.settings), as_json=as_json)
    elif isinstance(opened.settings, AwsSettings):
        settings = opened.settings
        done = destroy_aws(
            opened,
            settings,
            ask=lambda resources: _ask(stack, settings, resources, yes=yes or confirm is not None),
            tries=tries,
            pause=pause,
            forget_unreachable=k8s_unreachable,
        )
        _tell(stack, done, as_json=as_json)
        clean = done.found.nothing
        if clean and not as_json and opened.exists and not remove_stack:
            click.echo(f"The empty record of {stack} stays: `--remove-stack` removes that, too.")
    if clean and remove_stack and opened.exists:
        opened.forget()
        say(f"The record of {stack} is removed; Pulumi.{stack}.yaml stays.")
    if not clean:
        sys.exit(LEFT)


def _ask(stack: str, settings: AwsSettings, resources: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfirmationError(f"without a terminal nobody can be asked: `atlas destroy --stack {stack} --yes`")
    say(f"This deletes the stack {stack} in {settings.region}, cluster {settings.cluster_name}: {resources} resources,")
    say("their data included (objects, images, metrics).")
    if click.prompt("Type the stack's name to continue", err=True) != stack:
        raise ConfirmationError("that is not the stack's name: nothing was deleted")


def _tell_local(removed: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"removed": removed, "swept": [], "left": [], "unseen": []}, indent=1))
    else:
        click.echo(f"Removed: {', '.join(removed) or 'nothing (there was nothing)'}. {KEPT}.")


def _tell(stack: str, done: Destroyed, *, as_json: bool) -> None:
    swept, found = done.swept, done.found
    if as_json:
        document = {
            "removed": done.removed,
            "swept": swept.removed,
            "left": [asdict(thing) for thing in found.left],
            "unseen": [*swept.problems, *found.unseen],
        }
        click.echo(json.dumps(document, indent=1))
        return
    click.echo(f"Removed: {', '.join(done.removed) or 'nothing (there was nothing)'}.")
    if swept.removed:
        click.echo(f"Swept: {', '.join(swept.removed)}.")
    for problem in (*swept.problems, *found.unseen):
        click.echo(f"  {problem}")
    for thing in found.left:
        detail = f" ({thing.detail})" if thing.detail else ""
        click.echo(f"  left: {thing.kind} {thing.id}{detail}\n        {thing.remedy}")
    if found.nothing:
        click.echo(f"Nothing of {stack} is left.")
    elif found.left:
        click.echo(
            f"{len(found.left)} resources are left; some cost money. The lines above remove them, in this order."
        )
    else:
        click.echo("Nothing was found, but not everything could be checked.")
