"""`atlas destroy`: back to nothing, and proof of it."""

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from pulumi import automation as auto

from infra.cli.common import guarded, json_option, say, settings_of, stack_option
from infra.engine.events import Events
from infra.engine.locks import take_up
from infra.engine.workspace import REPOSITORY, find_stack, resources_of
from infra.errors import ConfirmationError, FailedError, PreflightError, SettingsError
from infra.leftovers.look import Found, look
from infra.leftovers.place import place_of
from infra.leftovers.sweep import Swept, sweep
from infra.local.supervisor import Stack as Processes
from infra.settings import AwsSettings, LocalSettings

KEPT = "data/, models/, .atlas/mlflow and .atlas/dvc-remote stay"
LEFT = 3
"""Exit status when something is left, or may be."""
PASSING = re.compile(
    r"Throttl|RequestLimitExceeded|TooManyRequests|Rate exceeded|SlowDown|DependencyViolation|ResourceInUse"
    r"|BucketNotEmpty|OperationAborted|InternalError|InternalFailure|ServiceUnavailable|RequestTimeout"
    r"|timeout while waiting|timed out|connection reset|i/o timeout",
    re.IGNORECASE,
)
"""Errors that another try, after a sweep, may not meet again."""
REFUSED = re.compile(r"AccessDenied|UnauthorizedOperation|not authorized|is protected", re.IGNORECASE)
"""Errors that every try would meet again."""


@click.command()
@stack_option
@json_option
@click.option("--yes", is_flag=True, help="Don't ask. Without a terminal nobody can be asked, and this is needed.")
@click.option("--confirm", default=None, metavar="STACK", help="Instead of --yes: the stack's name, typed once more.")
@click.option("--tries", default=3, show_default=True, type=click.IntRange(1, 10), help="How often AWS is tried.")
@click.option("--pause", default=20, show_default=True, type=click.IntRange(0, 600), help="Seconds between tries.")
@click.option(
    "--k8s-unreachable",
    is_flag=True,
    help="Forget what is in the cluster when the cluster no longer answers; its load balancers may be left.",
)
@click.option("--remove-stack", is_flag=True, help="Remove the stack's record, too, when nothing is left.")
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
    """Remove everything that `up` made, sweep what AWS leaves behind, and look that nothing is left.

    On this machine (local) data, models and MLflow's records stay. Exit status: 0 nothing is left; 1 it failed, run it
    again; 3 something is left or could not be looked at, each told with its remedy.

    Example: atlas destroy --stack dev
    """
    if confirm is not None and confirm != stack:
        raise SettingsError(f"--confirm says {confirm!r}, the stack is {stack!r}: nothing is destroyed")
    settings = settings_of(stack, makes=False)
    opened = find_stack(stack, settings, lambda: None, REPOSITORY, say)
    if isinstance(settings, LocalSettings):
        _local(settings, opened, as_json=as_json)
        clean = True
    else:
        resources = resources_of(opened)
        _refuse_protected(stack, resources)
        _ask(stack, settings, len(resources), yes=yes or confirm is not None)
        if opened is not None and k8s_unreachable:
            say("atlas: if the cluster doesn't answer, what is in it is forgotten; load balancers it made may be left")
            opened.workspace.env_vars = {**opened.workspace.env_vars, "PULUMI_K8S_DELETE_UNREACHABLE": "true"}
        if opened is not None:
            take_up(opened, say)
        vpcs = {str(made["id"]) for made in resources if made["type"] == "aws:ec2/vpc:Vpc"}
        clean = _aws(stack, settings, opened, vpcs, as_json=as_json, tries=tries, pause=pause)
        if clean and not as_json and opened is not None and not remove_stack:
            click.echo(f"The empty record of {stack} stays: `--remove-stack` removes that, too.")
    if clean and remove_stack and opened is not None:
        opened.workspace.remove_stack(stack, preserve_config=True)
        say(f"The record of {stack} is removed; Pulumi.{stack}.yaml stays.")
    if not clean:
        sys.exit(LEFT)


def _local(settings: LocalSettings, opened: auto.Stack | None, *, as_json: bool) -> None:
    removed = _run(opened)
    # What a killed `up` started before the engine could note it.
    left = Processes(REPOSITORY / settings.directory).end_orphans()
    if left:
        say(f"  ended {len(left)} processes that no run had noted: {', '.join(map(str, left))}")
    if as_json:
        click.echo(json.dumps({"removed": removed, "swept": [], "left": [], "unseen": []}, indent=1))
    else:
        click.echo(f"Removed: {', '.join(removed) or 'nothing (there was nothing)'}. {KEPT}.")


def _aws(
    stack: str,
    settings: AwsSettings,
    opened: auto.Stack | None,
    vpcs: set[str],
    *,
    as_json: bool,
    tries: int,
    pause: int,
) -> bool:
    """Take it down, sweep, look; whether nothing is left."""
    # Asked before anything goes: afterwards the network's tags are gone.
    place = place_of(stack, settings, vpcs)
    removed: list[str] = []
    swept = Swept()
    for left in reversed(range(tries)):
        try:
            removed += _run(opened)
            break
        except FailedError as failed:
            text = "\n".join(failed.lines)
            if "unreachable" in text and "cluster" in text:
                failed.lines.append(
                    "the cluster doesn't answer: reach it (VPN, atlas:apiAccessCidrs), or when it is gone "
                    f"`atlas destroy --stack {stack} --k8s-unreachable`"
                )
                raise
            if REFUSED.search(text) or not PASSING.search(text) or not left:
                raise
            say(f"  not all could go: {failed.lines[0].splitlines()[0]}")
            say(f"  sweeping, then trying again ({left} left)")
            _add(swept, sweep(place, say, pause=pause))
            time.sleep(pause)
    _add(swept, sweep(place, say, pause=pause))
    found = look(place)
    if as_json:
        click.echo(json.dumps(_document(removed, swept, found), indent=1))
    else:
        _tell(stack, removed, swept, found)
    return found.nothing


def _run(opened: auto.Stack | None) -> list[str]:
    """Names of what the engine removed: nothing of a stack that isn't there.

    Raises FailedError with what it reported, CredentialsError when the credentials ended.
    """
    if opened is None:
        return []
    events = Events(say)
    try:
        opened.destroy(on_event=events, suppress_outputs=True, color="never")
    except auto.CommandError:
        events.raise_errors()
        raise
    return sorted(events.changes)


def _refuse_protected(stack: str, resources: Sequence[dict[str, Any]]) -> None:
    """A protected stack is refused whole; the engine would first take down all around what is protected."""
    protected = [str(made["urn"]).rsplit("::", 1)[-1] for made in resources if made.get("protect")]
    if protected:
        raise PreflightError(
            f"the stack {stack} is protected ({', '.join(protected)} would be deleted with all data): to go on, say "
            f"`atlas:disposable: true` in Pulumi.{stack}.yaml, `atlas up --stack {stack}`, then destroy"
        )


def _ask(stack: str, settings: AwsSettings, resources: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfirmationError(f"without a terminal nobody can be asked: `atlas destroy --stack {stack} --yes`")
    say(f"This deletes the stack {stack} in {settings.region}, cluster {settings.cluster_name}: {resources} resources,")
    say("their data included (objects, images, metrics).")
    if click.prompt("Type the stack's name to go on", err=True) != stack:
        raise ConfirmationError("that is not its name: nothing was deleted")


def _add(whole: Swept, part: Swept) -> None:
    whole.removed += part.removed
    whole.problems = part.problems  # those of an earlier sweep are tried again


def _document(removed: list[str], swept: Swept, found: Found) -> dict[str, Any]:
    return {
        "removed": removed,
        "swept": swept.removed,
        "left": [asdict(thing) for thing in found.left],
        "unseen": [*swept.problems, *found.unseen],
    }


def _tell(stack: str, removed: list[str], swept: Swept, found: Found) -> None:
    click.echo(f"Removed: {', '.join(removed) or 'nothing (there was nothing)'}.")
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
        click.echo(f"{len(found.left)} things are left; some cost money. The lines above remove them, in this order.")
    else:
        click.echo("Nothing was found, but not everything could be looked at.")
