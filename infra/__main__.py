"""The Pulumi program: load settings, pick the environment, export outputs; nothing else."""

from pathlib import Path

import pulumi
import pulumi.runtime

from infra.environments import local
from infra.settings import load_settings

REPOSITORY = Path(__file__).parents[1]


def program() -> None:
    """Declare the selected stack's resources."""
    config = pulumi.runtime.config.get_config_env() | pulumi.runtime.config.CONFIG.get()
    for name, value in local.deploy(load_settings(config), REPOSITORY).items():
        pulumi.export(name, value)


if __name__ == "__main__":
    program()
