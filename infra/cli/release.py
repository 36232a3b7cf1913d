"""`atlas promote` and `atlas rollback`: another image by its digest, never a rebuild."""

import json
from collections.abc import Callable

import click

from infra.cli.common import agree, guarded, json_option, say, stack_of, stack_option
from infra.cli.stack import report, rollback_option, wait_option
from infra.deployment import release
from infra.engine.stack import AtlasStack
from infra.errors import FailedError, SettingsError

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
    released = release.promote(
        _aws(source),
        _aws(target),
        ask=_asker(f"atlas promote {source} {target}", yes=yes),
        show=None if as_json else click.echo,
        force=force,
        wait=wait,
        smoke=smoke,
        go_back=rollback_on_failure,
    )
    _report(released, as_json=as_json)


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
    opened = _aws(stack)
    if after_failure:
        raise FailedError([f"the new image failed; {release.after_failure(opened, wait=wait)}"])
    released = release.roll_back(
        opened,
        digest,
        ask=_asker(f"atlas rollback --stack {stack}", yes=yes),
        show=None if as_json else click.echo,
        wait=wait,
        smoke=smoke,
    )
    _report(released, as_json=as_json)
    if release.aws_of(opened).image is None:
        say(f"The next `atlas up --stack {stack}` builds from this checkout again: mend what made the image bad first.")


def _aws(name: str) -> AtlasStack:
    stack = stack_of(name, makes=False)
    release.aws_of(stack)
    return stack


def _asker(command: str, *, yes: bool) -> Callable[[str], None]:
    return lambda question: agree(question, yes=yes, command=f"{command} --yes")


def _report(released: release.Released, *, as_json: bool) -> None:
    done = released.done
    if as_json:
        document = {"foreseen": released.foreseen, "outputs": done.outputs, "changes": done.changes}
        click.echo(json.dumps({**document, "example": done.example}, indent=1))
    else:
        report(done, as_json=False)
