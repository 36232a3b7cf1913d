"""The Pulumi program: selects the environment by the settings, declares it, exports its outputs; it queries nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
import pulumi.runtime

from infra.local.machine import Machine
from infra.names import PROJECT
from infra.settings import (
    SECRETS,
    AnySettings,
    AwsSettings,
    BootstrapSettings,
    LocalSettings,
    load_settings,
    must_be_encrypted,
)

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the program needs besides the settings; its caller finds it out before the program runs."""

    image: str | None = None
    """AWS: deploy this image, whatever the settings say."""
    stacks: Mapping[str, AwsSettings] = field(default_factory=dict)
    """bootstrap: the stacks that GitHub's roles are for, with their settings."""
    foreign_provider: bool = False
    """bootstrap: the account already has an identity provider for GitHub, which is used and not changed."""
    machine: Machine = field(default_factory=Machine)
    """local: this machine's ports and programs."""
    closing: bool = False
    """bootstrap: destroy comes next, so the protection of the state is removed."""


NOTHING = Facts()


def given_settings() -> AnySettings:
    """The settings that the engine passes to the program, with decrypted secrets.

    Raises SettingsError when a setting is invalid, or a secret isn't encrypted.
    """
    config = pulumi.runtime.config.get_config_env() | pulumi.runtime.config.CONFIG.get()
    for name in SECRETS:
        key = f"{PROJECT}:{name}"
        if key in config and not pulumi.runtime.config.is_config_secret(key):
            raise must_be_encrypted(name)
    return load_settings(config)


def program(facts: Facts = NOTHING) -> None:
    """Declare the stack for which the engine runs this program."""
    declare(given_settings(), facts)


def declare(settings: AnySettings, facts: Facts) -> None:
    """Declare the environment of the settings, and export its outputs."""
    # Each environment is imported where it is needed, because the AWS SDKs take half a second to import.
    if isinstance(settings, LocalSettings):
        from infra.environments import local

        outputs = local.deploy(settings, REPOSITORY, facts.machine)
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
