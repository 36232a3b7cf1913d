"""Reads a stack's cluster through the Kubernetes API: its pods, why they don't become ready, and their logs."""

import base64
import json
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward
from urllib3.exceptions import HTTPError

from infra.errors import ClusterError, one_line
from infra.names import APP_LABEL, MATERIALIZER
from infra.settings import AwsSettings

PATIENCE = 10
"""Timeout of a request, in seconds."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the service, or of the materialiser."""

    name: str
    ready: bool
    image: str
    restarts: int
    trouble: str
    """Why it isn't ready; empty if it is ready, or if Kubernetes gives no reason."""


@contextmanager
def cluster_of(settings: AwsSettings) -> Iterator[Any]:
    """A client of the stack's cluster with the caller's own AWS identity; it leaves no files.

    Raises ClusterError when AWS or the cluster refuses, or the API can't be reached.
    """
    found = _described(settings)
    command = ["aws", "--region", settings.region, "eks", "get-token", "--cluster-name", settings.cluster_name]
    try:
        told = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, timeout=60, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        raise ClusterError("the AWS CLI, which creates the token, is not on PATH or doesn't answer") from None
    if told.returncode != 0:
        raise ClusterError(one_line(told.stderr) or "`aws eks get-token` failed")
    with tempfile.NamedTemporaryFile(suffix=".crt") as authority:
        authority.write(base64.b64decode(found["certificateAuthority"]["data"]))
        authority.flush()
        options = client.Configuration(host=found["endpoint"])
        options.ssl_ca_cert = authority.name
        options.api_key = {"authorization": f"Bearer {json.loads(told.stdout)['status']['token']}"}
        with reached(), client.ApiClient(options) as api:
            yield api


def control_plane(settings: AwsSettings) -> tuple[str, str]:
    """Version and state of the cluster, from EKS.

    Raises ClusterError when AWS refuses.
    """
    found = _described(settings)
    return str(found["version"]), str(found["status"])


def _described(settings: AwsSettings) -> dict[str, Any]:
    try:
        found: dict[str, Any] = boto3.client("eks", region_name=settings.region).describe_cluster(
            name=settings.cluster_name
        )["cluster"]
    except (BotoCoreError, ClientError) as error:
        raise ClusterError(one_line(error)) from None
    return found


@contextmanager
def reached() -> Iterator[None]:
    """Inside, requests to a cluster raise ClusterError when it refuses or can't be reached."""
    try:
        yield
    except ApiException as error:
        raise ClusterError(f"the Kubernetes API answers {error.status} {error.reason}") from None
    except (HTTPError, OSError) as error:
        reason = one_line(getattr(error, "reason", None) or error)
        raise ClusterError(f"the Kubernetes API is out of reach (atlas:apiAccessCidrs?): {reason}") from None


@contextmanager
def tunnel(api: Any, namespace: str, app: str, port: int) -> Iterator[socket.socket]:
    """A connection to a ready pod's port through the Kubernetes API, like `kubectl port-forward`.

    Raises ClusterError when no pod is ready.
    """
    ready = [pod.name for pod in pods(api, namespace, app) if pod.ready]
    if not ready:
        raise ClusterError("no pod is ready")
    core = client.CoreV1Api(api)
    forward = portforward(core.connect_get_namespaced_pod_portforward, ready[0], namespace, ports=str(port))
    try:
        yield forward.socket(port)
    finally:
        forward.close()


def may_patch(api: Any, namespace: str) -> bool:
    """Whether the caller may patch Deployments in the namespace; a server-side diff needs this (for its dry run)."""
    asked = {"verb": "patch", "group": "apps", "resource": "deployments", "namespace": namespace}
    review = client.AuthorizationV1Api(api).create_self_subject_access_review(
        {"spec": {"resourceAttributes": asked}},  # type: ignore[arg-type]
        _request_timeout=PATIENCE,
    )
    return bool(review.status and review.status.allowed)


def pods(api: Any, namespace: str, app: str) -> list[Pod]:
    """The pods of the service, or of the materialiser (names.materializer), by name."""
    found = client.CoreV1Api(api).list_namespaced_pod(
        namespace, label_selector=f"{APP_LABEL}={app}", _request_timeout=PATIENCE
    )
    return sorted((_pod(item) for item in found.items), key=lambda pod: pod.name)


def wanted(api: Any, namespace: str, app: str) -> int:
    """How many pods there should be."""
    deployments = client.AppsV1Api(api).list_namespaced_deployment(
        namespace, label_selector=f"{APP_LABEL}={app}", _request_timeout=PATIENCE
    )
    return sum(deployment.spec.replicas or 0 for deployment in deployments.items)


def reasons(api: Any, namespace: str, app: str) -> list[str]:
    """Why the service's pods don't become ready, a line for each cause.

    The causes come from Kubernetes: conditions of replica sets (a quota, a refusal by admission control), states of
    containers, warning events, and the last log lines of containers that ended.
    """
    sets = client.AppsV1Api(api).list_namespaced_replica_set(
        namespace, label_selector=f"{APP_LABEL}={app}", _request_timeout=PATIENCE
    )
    told = [
        f"no pod can be created: {one_line(condition.message)}"
        for found in sets.items
        for condition in (found.status.conditions if found.status else None) or []
        if condition.type == "ReplicaFailure" and condition.status == "True"
    ]
    core = client.CoreV1Api(api)
    for pod in pods(api, namespace, app):
        if pod.ready:
            continue
        if pod.trouble:
            told.append(f"pod {pod.name}: {pod.trouble}")
        events = core.list_namespaced_event(
            namespace, field_selector=f"involvedObject.name={pod.name},type=Warning", _request_timeout=PATIENCE
        )
        told += [f"pod {pod.name}: {event.reason}: {one_line(event.message)}" for event in events.items]
        if pod.restarts:
            told += [f"pod {pod.name} logged: {line}" for line in _last_words(core, namespace, pod.name)]
    return list(dict.fromkeys(told))


def logs(api: Any, namespace: str, app: str, *, lines: int | None, seconds: int) -> list[tuple[str, str]]:
    """(pod, line with its time) from each pod's log of the last `seconds`: at most `lines` per pod, None for all."""
    core = client.CoreV1Api(api)
    return [
        (pod.name, line)
        for pod in pods(api, namespace, app)
        for line in core.read_namespaced_pod_log(
            pod.name, namespace, tail_lines=lines, since_seconds=seconds, timestamps=True, _request_timeout=PATIENCE
        ).splitlines()
    ]


def _pod(found: Any) -> Pod:
    statuses: Sequence[Any] = found.status.container_statuses or []
    trouble = ""
    for condition in found.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            trouble = f"{condition.reason}: {one_line(condition.message)}"
    for status in statuses:
        waits, ended = status.state.waiting, status.last_state.terminated
        if waits is not None and waits.reason not in ("ContainerCreating", "PodInitializing"):
            trouble = f"{waits.reason}: {one_line(waits.message or '')}"
        if ended is not None and ended.reason == "OOMKilled":
            setting = "materializerMemoryMib" if status.name == MATERIALIZER else "podMemoryMib"
            trouble = f"OOMKilled: it used more memory than atlas:{setting}"
    return Pod(
        name=found.metadata.name,
        ready=bool(statuses) and all(status.ready for status in statuses),
        image=found.spec.containers[0].image,
        restarts=sum(status.restart_count for status in statuses),
        trouble=trouble,
    )


def _last_words(core: Any, namespace: str, pod: str) -> list[str]:
    try:
        text = core.read_namespaced_pod_log(pod, namespace, previous=True, tail_lines=5, _request_timeout=PATIENCE)
    except ApiException:
        return []
    # The filtered line is kubelet's own message if the container no longer exists.
    return [line for line in text.splitlines() if line.strip() and not line.startswith("unable to retrieve container")]
