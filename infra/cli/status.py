"""`atlas status`: what runs and whether it is healthy."""

import json
import sys
import urllib.request
from dataclasses import dataclass
from typing import Any

import boto3
import click
from botocore.exceptions import BotoCoreError, ClientError
from pulumi import automation as auto

from infra.cli.common import answers, guarded, json_option, say, settings_of, stack_option, table
from infra.engine.workspace import REPOSITORY, find_stack, outputs_of, resources_of
from infra.errors import ClusterError, one_line
from infra.local.supervisor import Stack as Processes
from infra.names import (
    COMPONENT_TAG,
    GRAFANA_HEALTH,
    MLFLOW_HEALTH,
    PROJECT,
    PROJECT_TAG,
    PROMETHEUS_READY,
    SERVICE_READY,
    STACK_TAG,
)
from infra.program import program
from infra.settings import AwsSettings

UNSEEN = 3
"""Exit status when nothing is known to be wrong, and not everything could be looked at."""
PARTS = ("service", "mlflow", "prometheus", "grafana")


@click.command()
@stack_option
@json_option
@guarded
def status(stack: str, as_json: bool) -> None:
    """What runs and whether it is healthy.

    Exit status: 0 all is well; 1 something isn't, or the stack is not up; 3 something can't be looked at from here.

    Example: atlas status --stack local
    """
    settings = settings_of(stack, makes=False)
    opened = find_stack(stack, settings, program, REPOSITORY, say)
    outputs = outputs_of(opened)
    if isinstance(settings, AwsSettings):
        _aws_status(stack, settings, opened, outputs, as_json=as_json)
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


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an AWS stack."""

    healthy: bool | None
    """None: it couldn't be looked at."""
    what: str
    """What was seen, or why nothing."""


def _aws_status(
    stack: str, settings: AwsSettings, opened: auto.Stack | None, outputs: dict[str, Any], *, as_json: bool
) -> None:
    """The outputs and how each part is; ends with the exit status."""
    last = _last(opened)
    if not outputs:
        # An `up` that failed half-way has made things, and no outputs.
        made = sum(1 for one in resources_of(opened) if one.get("custom") and not one["type"].startswith("pulumi:"))
        if as_json:
            nothing = {"healthy": False, "bundle": None, "outputs": {}, "parts": {}, "resources": made, "last": last}
            click.echo(json.dumps(nothing, indent=1))
        else:
            there = f"{made} resources are there all the same; " if made else ""
            click.echo(f"The stack {stack} is not up: {there}`atlas up --stack {stack}`")
            _tell_last(last)
        sys.exit(1)
    service, bundle = _service(str(outputs["service"]))
    parts = {
        "service": service,
        **_cluster(settings),
        "prometheus": _host(stack, settings, "prometheus"),
        "grafana": _host(stack, settings, "grafana"),
    }
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
            click.echo(f"  {name:<12}{health:<13}{part.what}")
        _tell_last(last)
    if any(part.healthy is False for part in parts.values()):
        sys.exit(1)
    sys.exit(0 if healthy else UNSEEN)


def _service(address: str) -> tuple[Part, str | None]:
    """The service as it answers here, and the version of the bundle that it says it serves."""
    try:
        with urllib.request.urlopen(f"{address}{SERVICE_READY}", timeout=5) as response:  # noqa: S310 - the stack's own
            version = str(json.load(response)["model"]["version"])
    except OSError:
        return Part(False, "DOES NOT ANSWER from here (atlas:serviceCidrs?)"), None
    except (ValueError, KeyError, TypeError):
        return Part(True, "answers, and names no bundle"), None
    return Part(True, f"answers, bundle {version[:12]}"), version


def _tell_last(last: dict[str, Any] | None) -> None:
    if last:
        click.echo(f"\n  Last: {last['kind']} {last['result']}, {last['end'] or 'not ended'}.")


def _cluster(settings: AwsSettings) -> dict[str, Part]:
    """The control plane by EKS, the service's pods by the Kubernetes API."""
    from infra.deployment.pods import cluster_of, control_plane, pods, reasons, wanted

    try:
        version, state = control_plane(settings)
    except ClusterError as error:
        return {"cluster": Part(None, str(error)), "pods": Part(None, "the cluster can't be asked")}
    cluster = Part(state == "ACTIVE", f"Kubernetes {version}, {state.lower()}")
    try:
        with cluster_of(settings) as api:
            found = pods(api, settings.namespace, settings.app_name)
            count, ready = wanted(api, settings.namespace, settings.app_name), sum(pod.ready for pod in found)
            images = {pod.image.rpartition("@")[2][:19] for pod in found}
            text = f"{ready} of {count} ready, {', '.join(sorted(images)) or 'no image'}"
            why = [] if ready >= count else reasons(api, settings.namespace, settings.app_name)
    except ClusterError as error:
        return {"cluster": cluster, "pods": Part(None, str(error))}
    return {"cluster": cluster, "pods": Part(ready >= count > 0, "; ".join([text, *why]))}


def _host(stack: str, settings: AwsSettings, role: str) -> Part:
    """A host by EC2's two checks of it."""
    tags = {PROJECT_TAG: PROJECT, STACK_TAG: stack, COMPONENT_TAG: role}
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
    gone = ["terminated", "shutting-down"]
    try:
        ec2 = boto3.client("ec2", region_name=settings.region)
        pages = ec2.describe_instances(Filters=filters)["Reservations"]
        found = [one for page in pages for one in page["Instances"] if one["State"]["Name"] not in gone]
        if not found:
            return Part(False, "its instance is gone: `atlas up` makes another")
        identifier, state = found[0]["InstanceId"], found[0]["State"]["Name"]
        checks = ec2.describe_instance_status(InstanceIds=[identifier])["InstanceStatuses"]
    except (BotoCoreError, ClientError) as error:
        return Part(None, one_line(error))
    passed = bool(checks) and all(checks[0][kind]["Status"] == "ok" for kind in ("InstanceStatus", "SystemStatus"))
    told = "checks passed" if passed else "EC2's checks not passed (they take some minutes after a start)"
    return Part(state == "running" and passed, f"{identifier} {state}, {told}")


def _last(opened: auto.Stack | None) -> dict[str, Any] | None:
    """The last thing that was done to the stack."""
    found = opened.history(page_size=1, show_secrets=False) if opened else []
    if not found:
        return None
    return {
        "kind": str(found[0].kind),
        "result": str(found[0].result),
        "end": found[0].end_time and str(found[0].end_time),
    }


def _health(part: str) -> str:
    return {
        "service": SERVICE_READY,
        "mlflow": MLFLOW_HEALTH,
        "prometheus": PROMETHEUS_READY,
        "grafana": GRAFANA_HEALTH,
    }[part]
