"""The Pulumi program: load settings, pick the environment, export outputs; nothing else."""

from pathlib import Path

import pulumi
import pulumi.runtime

from infra.preflight import check
from infra.settings import BootstrapSettings, LocalSettings, load_settings

REPOSITORY = Path(__file__).parents[1]


def program(*, checked: bool = True, image: str | None = None) -> None:
    """Declare the selected stack's resources; the `atlas` command has checked already what an AWS stack needs.

    `image`: deploy this one, whatever the settings say.
    """
    config = pulumi.runtime.config.get_config_env() | pulumi.runtime.config.CONFIG.get()
    settings = load_settings(config)
    if isinstance(settings, LocalSettings):
        from infra.environments import local

        outputs = local.deploy(settings, REPOSITORY)
    elif isinstance(settings, BootstrapSettings):
        from infra.account import look
        from infra.engine.workspace import bootstrapped
        from infra.environments import bootstrap

        adopt = look(settings).foreign_provider
        outputs = bootstrap.deploy(settings, bootstrapped(settings, REPOSITORY), adopt=adopt)
    else:
        if not checked:
            check(settings, changes=not pulumi.runtime.is_dry_run())
        from infra.environments import aws  # half a second of imports that a local stack needn't wait for

        outputs = aws.deploy(settings.model_copy(update={"image": image}) if image else settings, REPOSITORY)
    for name, value in outputs.items():
        pulumi.export(name, value)


if __name__ == "__main__":
    program(checked=False)
