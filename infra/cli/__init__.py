"""The `atlas` command: runs this repository's program through the Automation API; a module per group of commands."""

import os
from importlib import import_module

import click

from infra.loopback import spare_loopback

COMMANDS = {
    "bootstrap": "bootstrap:bootstrap",
    "check": "stack:check",
    "ci": "ci:ci",
    "cost": "cost:cost",
    "destroy": "destroy:destroy",
    "dvc-remote": "dvc:dvc_remote",
    "init": "init:init",
    "key": "key:key",
    "logs": "logs:logs",
    "predict": "predict:predict",
    "preview": "stack:preview",
    "promote": "release:promote",
    "refresh": "stack:refresh",
    "rollback": "release:rollback",
    "smoke": "stack:smoke",
    "status": "status:status",
    "up": "stack:up",
}
"""Command -> module:function; only the module of the requested command is imported."""


class _Commands(click.Group):
    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, function = COMMANDS[name].split(":")
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), function)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """From raw data to a monitored prediction service, and back."""
    spare_loopback(os.environ)
