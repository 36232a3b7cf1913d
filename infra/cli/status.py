"""`atlas status`: shows what runs and whether it is healthy."""

import json
import sys
from typing import Any

import click

from infra.cli.common import guarded, json_option, stack_of, stack_option, table
from infra.deployment.health import aws_health, local_health
from infra.engine.stack import AtlasStack
from infra.settings import AwsSettings, LocalSettings

UNSEEN = 3
"""Exit status if no problem was found, but not everything could be checked."""


@click.command()
@stack_option
@json_option
@guarded
def status(stack: str, as_json: bool) -> None:
    """Show what runs and whether it is healthy.

    Exit status: 0 everything is healthy; 1 something isn't, or the stack isn't deployed; 3 something can't be checked
    from this machine.

    Example: atlas status --stack local
    """
    opened = stack_of(stack, makes=False)
    if isinstance(opened.settings, AwsSettings):
        _aws_status(opened, opened.settings, as_json=as_json)
    elif isinstance(opened.settings, LocalSettings):
        _local_status(opened, opened.settings, as_json=as_json)


def _local_status(stack: AtlasStack, settings: LocalSettings, *, as_json: bool) -> None:
    """Print each process and its health; ends with the exit status."""
    outputs = stack.outputs()
    parts = local_health(settings, outputs)
    healthy = bool(parts) and all(part["healthy"] for part in parts.values())
    if as_json:
        click.echo(json.dumps({"bundle": outputs.get("bundle"), "healthy": healthy, "parts": parts}, indent=1))
    elif not parts:
        click.echo(f"The stack {stack.name} is not up: `atlas up --stack {stack.name}`")
    else:
        for name, part in parts.items():
            health = "healthy" if part["healthy"] else "NOT HEALTHY"
            click.echo(f"{name:<11} {part['address']:<24} {health:<12} {part['process']} {part['since']}")
        click.echo(f"{'bundle':<11} {str(outputs.get('bundle', ''))[:7]}")
    sys.exit(0 if healthy else 1)


def _aws_status(stack: AtlasStack, settings: AwsSettings, *, as_json: bool) -> None:
    """Print the outputs and the health of each part; ends with the exit status."""
    outputs, last = stack.outputs(), _last(stack)
    if not outputs:
        # An `up` that failed half-way has created resources, but no outputs.
        made = sum(
            1 for resource in stack.resources() if resource.get("custom") and not resource["type"].startswith("pulumi:")
        )
        if as_json:
            nothing = {"healthy": False, "bundle": None, "outputs": {}, "parts": {}, "resources": made, "last": last}
            click.echo(json.dumps(nothing, indent=1))
        else:
            there = f"{made} resources exist nevertheless; " if made else ""
            click.echo(f"The stack {stack.name} is not up: {there}`atlas up --stack {stack.name}`")
            _tell_last(last)
        sys.exit(1)
    parts, bundle = aws_health(stack.name, settings, str(outputs["service"]))
    healthy = all(part.healthy for part in parts.values())
    if as_json:
        told = {name: {"healthy": part.healthy, "what": part.what} for name, part in parts.items()}
        document = {"healthy": healthy, "bundle": bundle, "outputs": outputs, "parts": told, "last": last}
        click.echo(json.dumps(document, indent=1))
    else:
        table(outputs)
        click.echo()
        for name, part in parts.items():
            health = {True: "healthy", False: "NOT HEALTHY", None: "unknown"}[part.healthy]
            click.echo(f"  {name:<14}{health:<13}{part.what}")
        _tell_last(last)
    if any(part.healthy is False for part in parts.values()):
        sys.exit(1)
    sys.exit(0 if healthy else UNSEEN)


def _last(stack: AtlasStack) -> dict[str, Any] | None:
    """The last operation on the stack."""
    last = stack.last()
    if last is None:
        return None
    return {"kind": str(last.kind), "result": str(last.result), "end": last.end_time and str(last.end_time)}


def _tell_last(last: dict[str, Any] | None) -> None:
    if last:
        click.echo(f"\n  Last: {last['kind']} {last['result']}, {last['end'] or 'not ended'}.")
