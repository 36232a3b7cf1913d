"""The resources of each stack, recorded once on the real engine, in the form in which rules see them."""

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pulumi
import yaml

from infra.environments import bootstrap
from infra.policy.rule import Resource
from infra.program import program
from infra.settings import AnySettings, AwsSettings, BootstrapSettings, load_settings
from tests.infra.recording.run import REPOSITORY, Life
from tests.infra.support.aws import BASE, DIGEST, FULL, up

STACKS = ("base", "full", "dev", "prod", "bootstrap")
"""Variants of the AWS program, the stack files as they are, and bootstrap."""


def stack_file(stack: str) -> dict[str, str]:
    """The settings of Pulumi.<stack>.yaml, as the engine gets them, with an existing image."""
    config = yaml.safe_load((REPOSITORY / f"Pulumi.{stack}.yaml").read_text())["config"]
    given = {
        key.removeprefix("atlas:"): value if isinstance(value, str) else json.dumps(value)
        for key, value in config.items()
    }
    return given if stack == "bootstrap" else given | {"image": DIGEST}


def settings_of(stack: str) -> AnySettings:
    given: Mapping[str, str] = {"base": BASE, "full": FULL}.get(stack) or stack_file(stack)
    return load_settings({f"atlas:{key}": value.removeprefix("secret:") for key, value in given.items()})


def program_of(stack: str) -> Callable[[], None]:
    """The program that declares the stack; bootstrap's doesn't query the account."""
    if stack != "bootstrap":
        return program

    def declare() -> None:
        settings = settings_of("bootstrap")
        assert isinstance(settings, BootstrapSettings)
        stacks = {name: own for name in settings.stacks if isinstance(own := settings_of(name), AwsSettings)}
        for name, value in bootstrap.deploy(settings, stacks, adopt=False).items():
            pulumi.export(name, value)

    return declare


@cache
def resources(stack: str) -> list[Resource]:
    """All resources of the deployed stack."""
    if stack in ("base", "full"):
        made = up(stack)
    else:
        folder = Path(tempfile.mkdtemp(prefix="atlas-policy-"))
        made = Life(folder, program_of(stack), stack_file(stack), stack=stack)
        done = made.up()
        assert done.errors == [], done.errors
    settings = settings_of(stack)
    return [
        Resource(
            kind=one["type"],
            name=one["urn"].rsplit("::", 1)[-1],
            inputs=one.get("outputs" if one["type"] == "pulumi:pulumi:Stack" else "inputs") or {},
            settings=settings,
            urn=one["urn"],
            uses=one.get("propertyDependencies") or {},
        )
        for one in made.state()
    ]
