"""The health of a stack's parts, by HTTP and from supervisord, Kubernetes and, for the hosts, EC2."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import ClusterError, one_line
from infra.local.supervisor import Supervisord
from infra.loopback import answers, open_url
from infra.names import (
    COMPONENT_TAG,
    GRAFANA_HEALTH,
    MATERIALIZER,
    MLFLOW_HEALTH,
    PROJECT,
    PROJECT_TAG,
    PROMETHEUS_READY,
    SERVICE_READY,
    STACK_TAG,
    materializer,
)
from infra.program import REPOSITORY
from infra.settings import AwsSettings, LocalSettings

LOCAL = {
    "service": SERVICE_READY,
    "mlflow": MLFLOW_HEALTH,
    "prometheus": PROMETHEUS_READY,
    "grafana": GRAFANA_HEALTH,
}
"""Part of a local stack -> the path that answers 200 if it is healthy."""


UNWRITTEN = "it has not written the feature store yet"
"""What is told of a materialiser that isn't ready, before the reasons."""


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a part of an AWS stack."""

    healthy: bool | None
    """None: it couldn't be checked."""
    what: str
    """What the check found, or why it wasn't possible."""


def local_health(settings: LocalSettings, outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Process of the stack -> its address, whether it is healthy, its state and since when, from this machine."""
    states = Supervisord(REPOSITORY / settings.directory).states()
    addresses = {name: str(outputs.get(name, "")) for name in LOCAL}
    return {
        name: {
            "address": address,
            "healthy": answers(address + LOCAL[name]),
            "process": str(states.get(name, {}).get("statename", "not running")).lower(),
            "since": states.get(name, {}).get("description", ""),
        }
        for name, address in addresses.items()
        if address.startswith("http")
    }


def aws_health(stack: str, settings: AwsSettings, address: str) -> tuple[dict[str, Health], str | None]:
    """The health of each part, and the version of the bundle that the service at this address reports."""
    service, bundle = _service(address)
    parts = {
        "service": service,
        **cluster_health(settings),
        "prometheus": host_health(stack, settings, "prometheus"),
        "grafana": host_health(stack, settings, "grafana"),
    }
    return parts, bundle


def _service(address: str) -> tuple[Health, str | None]:
    """The service's health as seen from this machine, and the version of the bundle that it reports."""
    try:
        with open_url(f"{address}{SERVICE_READY}", timeout=5) as response:
            version = str(json.load(response)["model"]["version"])
    except OSError:
        return Health(False, "DOES NOT ANSWER from here (atlas:serviceCidrs?)"), None
    except (ValueError, KeyError, TypeError):
        return Health(True, "answers, but doesn't report its bundle"), None
    return Health(True, f"answers, bundle {version[:7]}"), version


def cluster_health(settings: AwsSettings) -> dict[str, Health]:
    """The health of the control plane, from EKS, and of the pods, from the Kubernetes API.

    `materializer` is only there if the stack has one.
    """
    from infra.deployment.pods import cluster_of, control_plane, pods, reasons, wanted

    try:
        version, state = control_plane(settings)
    except ClusterError as error:
        return {"cluster": Health(None, str(error)), "pods": Health(None, "the cluster can't be asked")}
    cluster = Health(state == "ACTIVE", f"Kubernetes {version}, {state.lower()}")
    try:
        with cluster_of(settings) as api:
            found = pods(api, settings.namespace, settings.app_name)
            count, ready = wanted(api, settings.namespace, settings.app_name), sum(pod.ready for pod in found)
            images = {pod.image.rpartition("@")[2][:19] for pod in found}
            text = f"{ready} of {count} ready, {', '.join(sorted(images)) or 'no image'}"
            why = [] if ready >= count else reasons(api, settings.namespace, settings.app_name)
            writer = materializer_health(api, settings)
    except ClusterError as error:
        return {"cluster": cluster, "pods": Health(None, str(error))}
    parts = {"cluster": cluster, "pods": Health(ready >= count > 0, "; ".join([text, *why]))}
    return parts if writer is None else {**parts, MATERIALIZER: writer}


def materializer_health(api: Any, settings: AwsSettings) -> Health | None:
    """The health of the pod that writes the feature store, from the Kubernetes API; None if there shall be none."""
    from infra.deployment.pods import pods, reasons, wanted

    name = materializer(settings.app_name)
    if not wanted(api, settings.namespace, name):
        return None
    found = pods(api, settings.namespace, name)
    if any(pod.ready for pod in found):
        return Health(True, "ready: it has written the feature store")
    why = reasons(api, settings.namespace, name)
    return Health(False, "; ".join([UNWRITTEN, *why]))


def host_health(stack: str, settings: AwsSettings, role: str) -> Health:
    """The health of a host, from EC2's two status checks."""
    tags = {PROJECT_TAG: PROJECT, STACK_TAG: stack, COMPONENT_TAG: role}
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
    gone = ["terminated", "shutting-down"]
    try:
        ec2 = boto3.client("ec2", region_name=settings.region)
        pages = ec2.describe_instances(Filters=filters)["Reservations"]
        found = [host for page in pages for host in page["Instances"] if host["State"]["Name"] not in gone]
        if not found:
            return Health(False, "its instance is gone: `atlas up` creates a new instance")
        identifier, state = found[0]["InstanceId"], found[0]["State"]["Name"]
        checks = ec2.describe_instance_status(InstanceIds=[identifier])["InstanceStatuses"]
    except (BotoCoreError, ClientError) as error:
        return Health(None, one_line(error))
    passed = bool(checks) and all(checks[0][kind]["Status"] == "ok" for kind in ("InstanceStatus", "SystemStatus"))
    told = "checks passed" if passed else "EC2's checks not passed (they take some minutes after a start)"
    return Health(state == "running" and passed, f"{identifier} {state}, {told}")
