"""Deploys an existing image by its digest: another stack's image (promote), or an earlier good image (roll back)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from infra.deployment.checks import check
from infra.deployment.images import Image, copy, image_of, is_there, known_good, repository_is_there
from infra.deployment.up import Done, bring_up, open_for_change, program_for, up
from infra.engine.events import Events
from infra.engine.stack import AtlasStack, Say
from infra.errors import SettingsError
from infra.loopback import answers
from infra.names import PROJECT, REGISTRY_TYPE, SERVICE_READY, image_repository, stack_prefix
from infra.settings import AwsSettings

Ask = Callable[[str], None]
"""Asks a person for confirmation; raises when the answer is no, or nobody can be asked."""
Show = Say | None
"""Prints the lines of the engine's own display; None if they aren't wanted."""


@dataclass(frozen=True, slots=True)
class Released:
    """The result of a promotion or a rollback."""

    foreseen: dict[str, str]
    """Resource name -> operation, as the preview showed before the confirmation."""
    done: Done


def promote(
    source: AtlasStack,
    target: AtlasStack,
    *,
    ask: Ask,
    show: Show,
    force: bool,
    wait: int,
    smoke: bool,
    go_back: bool,
) -> Released:
    """Deploy in `target` the image that `source` runs. `force`: even if the source's service doesn't answer.

    Raises SettingsError when there is no such image, or the target's file sets another image; otherwise like `up`.
    """
    there, here = aws_of(source), aws_of(target)
    if here.image != "promoted":
        raise SettingsError(
            f"Pulumi.{target.name}.yaml must say `atlas:image: promoted`: as it is, the next `up` would deploy another "
            "image"
        )
    account = check(there, changes=False).account
    check(here)
    outputs = source.outputs()
    running = image_of(str(outputs.get("image", "")))
    if running is None:
        raise SettingsError(
            f"{source.name} runs no image of its own repository: `atlas up --stack {source.name}` first"
        )
    if not force and not answers(f"{outputs['service']}{SERVICE_READY}"):
        raise SettingsError(
            f"{source.name} doesn't answer at {outputs['service']}, so its image may not work; --force promotes it "
            "anyway"
        )
    if there.model_uri:
        source.say(
            f"  {source.name} serves {there.model_uri}; the promotion copies the image with its own bundle, not this "
            "model"
        )
    promoted = Image(account, here.region, image_repository(target.name, here.app_name), running.digest)

    open_for_change(target)
    if image_of(target.deployed()[0] or "") == promoted:
        target.say(f"{target.name} has {running.digest} already")
    foreseen = _foreseen(target, promoted, show)
    ask(f"Deploy {running.digest} of {source.name} in {target.name}?")
    if not repository_is_there(promoted):
        _make_registry(target, here)
    if not is_there(promoted):
        target.say(f"  copying {running.digest} to {promoted.repository}")
        copy(running, promoted)
    return Released(foreseen, up(target, image=str(promoted), wait=wait, smoke=smoke, go_back=go_back))


def roll_back(stack: AtlasStack, digest: str | None, *, ask: Ask, show: Show, wait: int, smoke: bool) -> Released:
    """Deploy the image with this digest, or the last good image before the current image.

    Raises SettingsError when there is no such image, or the stack's file sets an image; otherwise like `up`.
    """
    settings = aws_of(stack)
    check(settings)
    reference, came_up = stack.deployed()
    asked = image_of(reference or "")
    if asked is None:
        raise SettingsError(f"{stack.name} runs no image of its own repository: there is nothing to go back from")
    if settings.image not in (None, "promoted"):
        raise SettingsError(
            f"Pulumi.{stack.name}.yaml sets atlas:image: change the digest there, then `atlas up --stack {stack.name}`"
        )
    good = known_good(asked)
    others = [other for other in good if not came_up or other != asked.digest]
    if digest is None and not others:
        raise SettingsError(
            f"no other image of {asked.repository} has ever answered: choose an image with `--to sha256:…`"
        )
    target = replace(asked, digest=digest or others[0])
    if not is_there(target):
        known = f"; these have answered: {', '.join(good)}" if good else ""
        raise SettingsError(f"{asked.repository} has no {target.digest}{known}")
    open_for_change(stack)
    foreseen = _foreseen(stack, target, show)
    ask(f"Deploy {target.digest} in {stack.name}, instead of {asked.digest}?")
    return Released(foreseen, up(stack, image=str(target), wait=wait, smoke=smoke))


def after_failure(stack: AtlasStack, *, wait: int) -> str:
    """After a failed deployment, deploy the last good image, whatever the stack's file says; returns the result."""
    check(aws_of(stack))
    reference, came_up = stack.deployed()
    asked = image_of(reference or "")
    if asked is None:
        return "there is no image to go back from"
    good = known_good(asked)
    if came_up and asked.digest in good[:1]:
        return f"{stack.name} still has {asked.digest}, which has answered before: there is nothing to go back from"
    if not good:
        return f"no image of {asked.repository} has ever answered, so there is nothing to go back to"
    stack.say(f"  going back to {good[0]}")
    done = bring_up(stack, image=str(replace(asked, digest=good[0])), wait=wait)
    if done.example is None:
        return f"{good[0]} is back, but gives no prediction either"
    return f"{stack.name} is back on {good[0]}, which answers"


def aws_of(stack: AtlasStack) -> AwsSettings:
    """The settings of a stack that runs an image; raises SettingsError when it runs none."""
    if not isinstance(stack.settings, AwsSettings):
        raise SettingsError(f"the stack {stack.name} runs no image: there is nothing to promote or to roll back")
    return stack.settings


def _foreseen(stack: AtlasStack, image: Image, show: Show) -> dict[str, str]:
    """Show what the engine would do; returns resource name -> operation."""
    events = Events()
    stack.preview(program_for(stack, str(image)), events, show=show)
    return events.changes


def _make_registry(stack: AtlasStack, settings: AwsSettings) -> None:
    """Create only the registry of a new stack, because the image must be copied before the stack can run it."""
    from infra.environments import aws  # half a second of imports

    stack.say("  creating the registry first")

    def registry() -> None:
        aws.declare_registry(settings, aws.in_account(settings))

    # Only these: the stack's other resources aren't in this program, so they would be deleted.
    name = stack_prefix(stack.name)
    urn = f"urn:pulumi:{stack.name}::{PROJECT}::{REGISTRY_TYPE}"
    targets = [f"{urn}::{name}", f"{urn}$aws:ecr/repository:Repository::{name}-repository"]
    stack.open().up(registry, target=targets)
