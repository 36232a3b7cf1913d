"""The Pulumi program: pick the environment by the settings, declare it, export its outputs; nothing is asked here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
import pulumi.runtime

from infra.settings import AnySettings, AwsSettings, BootstrapSettings, LocalSettings, load_settings

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be known besides the settings; who runs the program has found it out before."""

    image: str | None = None
    """AWS: deploy this image, whatever the settings say."""
    stacks: Mapping[str, AwsSettings] = field(default_factory=dict)
    """bootstrap: the stacks that GitHub's roles are for, with their settings."""
    foreign_provider: bool = False
    """bootstrap: the account has an identity provider for GitHub already, which is used and left alone."""
    closing: bool = False
    """bootstrap: the next thing is destroy, so what protects the state is taken off."""


NOTHING = Facts()


def given_settings() -> AnySettings:
    """The settings as the engine hands them to the program, its secrets decrypted.

    Raises SettingsError when a setting can't be used.
    """
    return load_settings(pulumi.runtime.config.get_config_env() | pulumi.runtime.config.CONFIG.get())


def program(facts: Facts = NOTHING) -> None:
    """Declare the stack that the engine runs this for."""
    declare(given_settings(), facts)


def declare(settings: AnySettings, facts: Facts) -> None:
    """Declare what the settings say, and export its outputs."""
    # Each environment is imported where it is needed: AWS's SDKs take half a second, which a local stack needn't wait.
    if isinstance(settings, LocalSettings):
        from infra.environments import local

        outputs = local.deploy(settings, REPOSITORY)
    elif isinstance(settings, BootstrapSettings):
        from infra.environments import bootstrap

        outputs = bootstrap.deploy(settings, facts.stacks, adopt=facts.foreign_provider, closing=facts.closing)
    else:
        from infra.environments import aws

        outputs = aws.deploy(
            settings.model_copy(update={"image": facts.image}) if facts.image else settings, REPOSITORY
        )
    for name, value in outputs.items():
        pulumi.export(name, value)
