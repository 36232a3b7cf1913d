"""`atlas promote` and `atlas rollback`: another image by its digest, never a rebuild."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click
from pulumi import automation as auto

from infra.cli.common import agree, answers, guarded, json_option, say, settings_of, stack_option
from infra.cli.stack import (
    Done,
    bring_up,
    going_back,
    no_answer,
    opened_for_change,
    report,
    rollback_option,
    wait_option,
)
from infra.deployment.checks import check
from infra.deployment.images import Image, copy, image_of, is_there, known_good, repository_is_there
from infra.engine.events import Events
from infra.engine.workspace import (
    POLICIES,
    REPOSITORY,
    deployment_of,
    find_stack,
    open_stack,
    outputs_of,
)
from infra.errors import FailedError, SettingsError
from infra.names import PROJECT, REGISTRY_TYPE, SERVICE_READY, image_repository, stack_prefix
from infra.program import Facts, program
from infra.settings import AwsSettings

yes_option = click.option(
    "--yes", is_flag=True, help="Don't ask. Without a terminal nobody can be asked, and this is needed."
)
smoke_option = click.option(
    "--smoke/--no-smoke", default=True, show_default=True, help="Ask for one prediction in the end."
)


@click.command()
@click.argument("source")
@click.argument("target")
@json_option
@yes_option
@click.option("--force", is_flag=True, help="Promote although the source's service doesn't answer from here.")
@wait_option
@smoke_option
@rollback_option
@guarded
def promote(
    source: str, target: str, as_json: bool, yes: bool, force: bool, wait: int, smoke: bool, rollback_on_failure: bool
) -> None:
    """Deploy in TARGET the image that SOURCE runs: the same digest, and the bundle that is in it.

    Copies it into TARGET's own repository, shows what would change, asks, deploys, and asks for one prediction.

    Example: atlas promote dev prod
    """
    if source == target:
        raise SettingsError(f"{source} can't be promoted to itself")
    there, here = _aws(source), _aws(target)
    if here.image != "promoted":
        raise SettingsError(
            f"Pulumi.{target}.yaml must say `atlas:image: promoted`: as it is, the next `up` would deploy another image"
        )
    account = check(there, changes=False).account
    check(here)
    outputs = outputs_of(find_stack(source, there, program, REPOSITORY, say))
    running = image_of(str(outputs.get("image", "")))
    if running is None:
        raise SettingsError(f"{source} runs no image of its own repository: `atlas up --stack {source}` first")
    if not force and not answers(f"{outputs['service']}{SERVICE_READY}"):
        raise SettingsError(
            f"{source} doesn't answer at {outputs['service']}: nothing is known of its image; --force takes it anyway"
        )
    if there.model_uri:
        say(f"  {source} serves {there.model_uri}; with the image goes the bundle in it, not what that names")
    promoted = Image(account, here.region, image_repository(target, here.app_name), running.digest)

    opened = opened_for_change(target, here, lambda: program(Facts(image=str(promoted))))
    if image_of(deployment_of(opened)[0] or "") == promoted:
        say(f"{target} has {running.digest} already")
    changes = _foreseen(opened, show=not as_json)
    agree(
        f"Deploy {running.digest} of {source} in {target}?", yes=yes, command=f"atlas promote {source} {target} --yes"
    )
    if not repository_is_there(promoted):
        _make_registry(target, here)
    if not is_there(promoted):
        say(f"  copying {running.digest} to {promoted.repository}")
        copy(running, promoted)
    with going_back(target, here, wait=wait, wanted=rollback_on_failure):
        done = bring_up(target, here, image=str(promoted), wait=wait, smoke=smoke)
        _finish(target, here, done, smoke=smoke, as_json=as_json, foreseen=changes)


@click.command()
@stack_option
@click.option("--to", "digest", default=None, help="This image instead of the last that answered: sha256:….")
@json_option
@yes_option
@wait_option
@smoke_option
@click.option("--after-failure", is_flag=True, hidden=True, help="What `up --rollback-on-failure` ends with.")
@guarded
def rollback(
    stack: str, digest: str | None, as_json: bool, yes: bool, wait: int, smoke: bool, after_failure: bool
) -> None:
    """Deploy the last image that answered before the one that is there now.

    Example: atlas rollback --stack dev
    """
    settings = _aws(stack)
    check(settings)
    if after_failure:
        raise FailedError([f"the new image failed; {_go_back(stack, settings, wait=wait)}"])
    _rollback(stack, settings, digest, _asker(stack, yes=yes), as_json=as_json, wait=wait, smoke=smoke)


def _go_back(stack: str, settings: AwsSettings, *, wait: int) -> str:
    """After a failed deployment: the last image that answered, whatever the stack's file says; what became of it."""
    reference, came_up = deployment_of(find_stack(stack, settings, program, REPOSITORY, say))
    asked = image_of(reference or "")
    if asked is None:
        return "there is no image to go back from"
    good = known_good(asked)
    if came_up and asked.digest in good[:1]:
        return f"{stack} still has {asked.digest}, which has answered before: there is nothing to go back from"
    if not good:
        return f"no image of {asked.repository} has ever answered, so there is nothing to go back to"
    say(f"  going back to {good[0]}")
    done = bring_up(stack, settings, image=str(replace(asked, digest=good[0])), wait=wait)
    if done.example is None:
        return f"{good[0]} is back, but gives no prediction either"
    return f"{stack} is back on {good[0]}, which answers"


def _rollback(
    stack: str, settings: AwsSettings, digest: str | None, ask: Callable[[str], None],
    *, as_json: bool, wait: int, smoke: bool,
) -> None:  # fmt: skip
    reference, came_up = deployment_of(find_stack(stack, settings, program, REPOSITORY, say))
    asked = image_of(reference or "")
    if asked is None:
        raise SettingsError(f"{stack} runs no image of its own repository: there is nothing to go back from")
    if settings.image not in (None, "promoted"):
        raise SettingsError(
            f"Pulumi.{stack}.yaml fixes atlas:image: put the digest there, and `atlas up --stack {stack}`"
        )
    good = known_good(asked)
    others = [one for one in good if not came_up or one != asked.digest]
    if digest is None and not others:
        raise SettingsError(f"no other image of {asked.repository} has ever answered: `--to sha256:…` names one")
    target = replace(asked, digest=digest or others[0])
    if not is_there(target):
        known = f"; these have answered: {', '.join(good)}" if good else ""
        raise SettingsError(f"{asked.repository} has no {target.digest}{known}")
    opened = opened_for_change(stack, settings, lambda: program(Facts(image=str(target))))
    changes = _foreseen(opened, show=not as_json)
    ask(f"Deploy {target.digest} in {stack}, instead of {asked.digest}?")
    done = bring_up(stack, settings, image=str(target), wait=wait, smoke=smoke)
    _finish(stack, settings, done, smoke=smoke, as_json=as_json, foreseen=changes)
    if settings.image is None:
        say(f"The next `atlas up --stack {stack}` builds from this checkout again: mend what made the image bad first.")


def _aws(stack: str) -> AwsSettings:
    settings = settings_of(stack, makes=False)
    if not isinstance(settings, AwsSettings):
        raise SettingsError(f"the stack {stack} runs no image: there is nothing to promote or to roll back")
    return settings


def _foreseen(opened: auto.Stack, *, show: bool) -> dict[str, str]:
    """Resource name -> operation, of what the engine would do; shown."""
    events = Events()
    try:
        opened.preview(
            diff=True,
            on_event=events,
            on_output=(lambda line: click.echo(line.rstrip("\n"))) if show else None,
            color="never",
            policy_packs=POLICIES,
        )
    except auto.CommandError:
        events.raise_errors()
        raise
    return events.changes


def _asker(stack: str, *, yes: bool) -> Callable[[str], None]:
    return lambda question: agree(question, yes=yes, command=f"atlas rollback --stack {stack} --yes")


def _make_registry(stack: str, settings: AwsSettings) -> None:
    """The registry alone, of a stack that has none yet: the image must be there before what runs it."""
    from infra.environments import aws  # half a second of imports

    say("  making the registry first")

    def registry() -> None:
        aws.declare_registry(settings, aws.in_account(settings))

    opened = open_stack(stack, settings, registry, REPOSITORY, say)
    # Only these: what else there is of the stack is not in this program, and would be deleted.
    name = stack_prefix(stack)
    urn = f"urn:pulumi:{stack}::{PROJECT}::{REGISTRY_TYPE}"
    targets = [f"{urn}::{name}", f"{urn}$aws:ecr/repository:Repository::{name}-repository"]
    events = Events(say)
    try:
        opened.up(target=targets, on_event=events, suppress_outputs=True, color="never")
    except auto.CommandError:
        events.raise_errors()
        raise


def _finish(
    stack: str, settings: AwsSettings, done: Done, *, smoke: bool, as_json: bool, foreseen: dict[str, str]
) -> None:
    if smoke and done.example is None:
        raise FailedError([no_answer(stack, settings)])
    if as_json:
        document: dict[str, Any] = {"foreseen": foreseen, "outputs": done.outputs, "changes": done.changes}
        click.echo(json.dumps({**document, "example": done.example}, indent=1))
    else:
        report(done, as_json=False)
