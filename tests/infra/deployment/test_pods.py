"""What a real cluster tells of pods: that they are ready, or why they aren't, and what they said."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from infra.deployment import pods as pods_api
from infra.deployment.pods import control_plane, logs, pods, reached, reasons, wanted
from infra.errors import ClusterError
from infra.settings import AwsSettings, load_settings
from tests.infra.plugins import found
from tests.infra.support.aws import BASE
from tests.infra.support.waiting import eventually

APP = "flask-app"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@contextmanager
def cluster_at(kubeconfig: Path) -> Iterator[Any]:
    """A client of the cluster that a kubeconfig names."""
    with reached(), config.new_client_from_config(str(kubeconfig)) as opened:
        yield opened


@pytest.fixture
def api() -> Iterator[Any]:
    found.kubeconfig()
    with cluster_at(Path(os.environ["KUBECONFIG"])) as opened:
        yield opened


@pytest.fixture
def namespace(api: Any) -> Iterator[str]:
    name = f"atlas-api-{uuid.uuid4().hex[:8]}"
    core: Any = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture
def deploy(api: Any, namespace: str) -> Callable[..., None]:
    """A Deployment of one container, which differs from a good one by what is given."""

    def made(image: str = "", command: str = "echo I am here; sleep 600", **container: Any) -> None:
        labels = {"app.kubernetes.io/name": APP}
        base = os.environ.get("ATLAS_TEST_BASE_IMAGE", "python:3.11-slim")
        inside = {"name": "app", "image": image or base, "command": ["sh", "-c", command], **container}
        pod = {"containers": [inside], "terminationGracePeriodSeconds": 0}
        apps: Any = client.AppsV1Api(api)
        apps.create_namespaced_deployment(
            namespace,
            {
                "metadata": {"name": APP, "labels": labels},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            },
        )

    return made


def told(api: Any, namespace: str, part: str) -> str:
    """The reasons, once this is among them."""

    def text() -> str:
        found = "\n".join(reasons(api, namespace, APP))
        return found if part in found else ""

    return str(eventually(text, part, 90))


def test_ready_pod_is_counted_has_no_trouble_and_its_words_are_heard(
    api: Any, namespace: str, deploy: Callable[..., None]
) -> None:
    deploy()
    (pod,) = eventually(lambda: [one for one in pods(api, namespace, APP) if one.ready], "a ready pod", 90)
    assert (pod.trouble, pod.restarts) == ("", 0)
    assert wanted(api, namespace, APP) == 1
    assert reasons(api, namespace, APP) == []
    ((who, line),) = logs(api, namespace, APP, lines=10, seconds=600)
    assert who == pod.name
    assert line.startswith("20")
    assert line.endswith(" I am here")


def test_quota_that_forbids_pods_is_named(api: Any, namespace: str, deploy: Callable[..., None]) -> None:
    core: Any = client.CoreV1Api(api)
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    deploy()
    assert "no pod can be created" in told(api, namespace, "exceeded quota: none")


def test_pod_that_fits_on_no_node_is_named(api: Any, namespace: str, deploy: Callable[..., None]) -> None:
    deploy(resources={"requests": {"cpu": "1000"}})
    assert "Insufficient cpu" in told(api, namespace, "Unschedulable")


def test_image_that_cannot_be_had_is_named(api: Any, namespace: str, deploy: Callable[..., None]) -> None:
    deploy(image="127.0.0.1:1/nothing:1")
    assert "127.0.0.1:1/nothing:1" in told(api, namespace, "Err")


def test_container_that_ends_is_quoted(api: Any, namespace: str, deploy: Callable[..., None]) -> None:
    deploy(command="echo service: no model bundle at /nowhere; exit 1")
    assert "BackOff" in told(api, namespace, "logged: service: no model bundle at /nowhere")


def test_probe_that_fails_is_named(api: Any, namespace: str, deploy: Callable[..., None]) -> None:
    probe = {"httpGet": {"path": "/health/ready", "port": 5000}, "periodSeconds": 1}
    deploy(readinessProbe=probe)
    assert "Readiness probe failed" in told(api, namespace, "Unhealthy")


def test_cluster_out_of_reach_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(
        "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}], "
        "users: [{name: x, user: {}}], clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]}"
    )
    with pytest.raises(ClusterError, match="out of reach") as refused, cluster_at(file) as api:
        pods(api, "default", APP)
    assert "\n" not in str(refused.value)


def test_missing_cluster_is_told_as_aws_says_it(moto: str) -> None:
    settings = load_settings({f"atlas:{key}": value for key, value in BASE.items()})
    assert isinstance(settings, AwsSettings)
    with pytest.raises(ClusterError, match="flask-app-cluster"):
        control_plane(settings)
    assert pods_api.PATIENCE <= 30
