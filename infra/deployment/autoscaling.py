"""Hands the number of pods over to the autoscaler when a stack gets one, so that no pod is lost on the way."""

from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from infra.deployment.pods import PATIENCE

MANAGER = "atlas-autoscaling"
"""The owner of `spec.replicas` between the program, which no longer sets it, and the autoscaler."""


def hand_over(api: Any, namespace: str, deployment: str) -> int | None:
    """Keep the Deployment's number of pods when the program stops setting it; returns that number.

    None if there is no such Deployment. When the only owner of a field no longer sets it, Kubernetes sets the field to
    its default: a Deployment of ten pods would have one until the autoscaler looks. So another owner sets it first, to
    what it is (kubernetes.io, Server-Side Apply, "Transferring ownership"); the autoscaler may change it afterwards,
    because it doesn't apply, but updates.
    """
    apps: Any = client.AppsV1Api(api)
    try:
        found = apps.read_namespaced_deployment(deployment, namespace, _request_timeout=PATIENCE)
    except ApiException as error:
        if error.status == 404:
            return None
        raise
    replicas: int = found.spec.replicas
    apps.patch_namespaced_deployment(
        deployment,
        namespace,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": deployment, "namespace": namespace},
            "spec": {"replicas": replicas},
        },
        field_manager=MANAGER,
        _content_type="application/apply-patch+yaml",
        _request_timeout=PATIENCE,
    )
    return replicas
