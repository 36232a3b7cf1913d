"""`atlas status`: what runs and whether it is healthy."""

import json
import sys
from typing import Any

import click

from infra.__main__ import program
from infra.cli.common import answers, guarded, json_option, say, settings_of, stack_option, table
from infra.engine.workspace import REPOSITORY, open_stack
from infra.local.supervisor import Stack as Processes
from infra.settings import AwsSettings

PARTS = ("service", "mlflow", "prometheus", "grafana")


@click.command()
@stack_option
@json_option
@guarded
def status(stack: str, as_json: bool) -> None:
    """What runs and whether it is healthy; exit status 1 when something isn't.

    Example: atlas status --stack local
    """
    settings = settings_of(stack, makes=False)
    opened = open_stack(stack, settings, program, REPOSITORY, say)
    outputs = {name: output.value for name, output in opened.outputs().items()}
    if isinstance(settings, AwsSettings):
        _aws_status(stack, outputs, as_json=as_json)
        return
    states = Processes(REPOSITORY / settings.directory).states()
    parts: dict[str, dict[str, Any]] = {}
    for name in PARTS:
        address = str(outputs.get(name, ""))
        if address.startswith("http"):
            state = states.get(name, {})
            parts[name] = {
                "address": address,
                "healthy": answers(address + _health(name)),
                "process": str(state.get("statename", "not running")).lower(),
                "since": state.get("description", ""),
            }
    healthy = bool(parts) and all(part["healthy"] for part in parts.values())
    if as_json:
        click.echo(json.dumps({"bundle": outputs.get("bundle"), "healthy": healthy, "parts": parts}, indent=1))
    elif not parts:
        click.echo(f"The stack {stack} is not up: `atlas up --stack {stack}`")
    else:
        for name, part in parts.items():
            health = "healthy" if part["healthy"] else "NOT HEALTHY"
            click.echo(f"{name:<11} {part['address']:<24} {health:<12} {part['process']} {part['since']}")
        click.echo(f"{'bundle':<11} {str(outputs.get('bundle', ''))[:12]}")
    sys.exit(0 if healthy else 1)


def _aws_status(stack: str, outputs: dict[str, Any], *, as_json: bool) -> None:
    """The outputs, and whether the service answers; exit status 1 when it doesn't."""
    healthy = bool(outputs) and answers(f"{outputs['service']}/health/ready")
    if as_json:
        click.echo(json.dumps({"healthy": healthy, "outputs": outputs}, indent=1))
    elif not outputs:
        click.echo(f"The stack {stack} is not up: `atlas up --stack {stack}`")
    else:
        table(outputs)
        click.echo(f"\n  The service {'is healthy' if healthy else 'DOES NOT ANSWER from here'}.")
    sys.exit(0 if healthy else 1)


def _health(part: str) -> str:
    return {"service": "/health/ready", "mlflow": "/health", "prometheus": "/-/ready", "grafana": "/api/health"}[part]
