"""`atlas promote` and `atlas rollback`: deploy an existing image by its digest, without a build."""

import json
from collections.abc import Callable

import click

from infra.cli.common import agree, guarded, json_option, say, stack_of, stack_option
from infra.cli.stack import report, rollback_option, wait_option
from infra.deployment import release
from infra.engine.stack import AtlasStack
from infra.errors import FailedError, SettingsError

yes_option = click.option("--yes", is_flag=True, help="Don't ask for confirmation; required without a terminal.")
smoke_option = click.option(
    "--smoke/--no-smoke", default=True, show_default=True, help="Request a prediction at the end."
)


@click.command()
@click.argument("source")
@click.argument("target")
@json_option
@yes_option
@click.option("--force", is_flag=True, help="Promote even if the source's service doesn't answer from this machine.")
@wait_option
@smoke_option
@rollback_option
@guarded
def promote(
    source: str, target: str, as_json: bool, yes: bool, force: bool, wait: int, smoke: bool, rollback_on_failure: bool
) -> None:
    """Deploy to TARGET the image that SOURCE runs, with the same digest and the bundle in it.

    It copies the image into TARGET's own repository, shows what would change, asks for confirmation, deploys, and
    requests a prediction.

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
@click.option("--to", "digest", default=None, help="Deploy this image (sha256:…) instead of the last good image.")
@json_option
@yes_option
@wait_option
@smoke_option
@click.option("--after-failure", is_flag=True, hidden=True, help="What `up --rollback-on-failure` ends with.")
@guarded
def rollback(
    stack: str, digest: str | None, as_json: bool, yes: bool, wait: int, smoke: bool, after_failure: bool
) -> None:
    """Deploy the last good image before the current image.

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
        say(f"The next `atlas up --stack {stack}` builds from this checkout again: first fix the image's problem.")


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
