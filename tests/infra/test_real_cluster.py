"""The AWS program with its container world real: image built and pushed, objects applied, predictions by a real pod.

AWS and EKS are recorded; the recorded cluster's kubeconfig leads to the one at KUBECONFIG, by the token command that
EKS's has. Needs that cluster, a Docker engine with buildx, a registry (tests/infra/plugins/found.py).
"""

import base64
import http.client
import json
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
from kubernetes import client, config
from kubernetes.stream import stream

from infra.environments import aws
from infra.settings import AwsSettings, load_settings
from tests.bundles import EXAMPLE, make_bundle
from tests.infra.plugins import found
from tests.infra.plugins.build import docker_build_plugin, kubernetes_plugin
from tests.infra.recording.run import Life, Result
from tests.infra.support.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
APP = f"atlas-test-{uuid.uuid4().hex[:6]}"
"""A run that was killed can't be in the way of the next."""
PATIENT, IMPATIENT = "4m", "30s"
"""How long an `up` waits for a rollout: one that shall go well, one that can't. The stack's own is longer."""
LOAD_INTERVAL = 0.05
LOAD_SECONDS = 120.0

# The first time, a provider and the image's packages are built
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Stack:
    """The stack, its settings, and ways to look at what it made."""

    life: Life
    settings: dict[str, str]
    folder: Path
    core: Any
    apps: Any
    registry: str
    patience: list[str]
    """One entry."""
    address: str = ""

    @property
    def namespace(self) -> str:
        return self.settings["namespace"]

    def up(self, **settings: str) -> Result:
        """`up` with these settings changed for good."""
        self.settings |= settings
        return self.life.up()

    def broken(self, **settings: str) -> str:
        """What an `up` with these settings fails with; the settings are as before, and so are the answers."""
        before = dict(self.settings)
        self.patience[0] = IMPATIENT
        done = self.up(**settings)
        self.patience[0] = PATIENT
        self.settings.clear()
        self.settings |= before
        assert done.failed
        assert self.predict() == 200
        return "\n".join(done.errors)

    def predict(self) -> int:
        """The status of one prediction through the load balancer."""
        connection = http.client.HTTPConnection(self.address, 5000, timeout=5)
        try:
            body = json.dumps({"rows": [EXAMPLE]})
            connection.request("POST", "/predict", body, {"Content-Type": "application/json", "Connection": "close"})
            answer = connection.getresponse()
            document = json.loads(answer.read())
            assert answer.status != 200 or len(document["predictions"]) == 1
            return answer.status
        finally:
            connection.close()

    def pods(self) -> list[Any]:
        return list(self.core.list_namespaced_pod(self.namespace).items)

    def deployment(self) -> Any:
        return self.apps.read_namespaced_deployment(APP, self.namespace)


@dataclass
class Load:
    """Predictions, one after the other at a steady pace, for a bounded time."""

    ask: Callable[[], int]
    over: threading.Event = field(default_factory=threading.Event)
    answers: list[int | str] = field(default_factory=list)

    def run(self) -> None:
        end = time.monotonic() + LOAD_SECONDS
        while not self.over.wait(LOAD_INTERVAL) and time.monotonic() < end:
            try:
                self.answers.append(self.ask())
            except (OSError, http.client.HTTPException) as error:
                self.answers.append(repr(error))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    kubeconfig, registry = found.kubeconfig(), found.registry()
    folder = tmp_path_factory.mktemp("real")
    for name in ("Dockerfile", ".dockerignore"):
        shutil.copy(REPOSITORY / name, folder / name)
    for name in ("requirements", "ml", "service"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    make_bundle(folder / "models" / "bundle")
    settings = {
        "environment": "aws",
        "disposable": "true",
        "apiAccessCidrs": "[]",
        "adminPrincipals": '["arn:aws:iam::123456789012:role/deploy"]',
        "serviceCidrs": '["0.0.0.0/0"]',
        "appName": APP,
        "namespace": APP,
        "baseImage": found.BASE_IMAGE,
        "mlflowToken": "first",
    }

    patience = [PATIENT]

    def patiently(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if args.type_ != "kubernetes:apps/v1:Deployment":
            return None
        times = pulumi.CustomTimeouts(create=PATIENT, update=patience[0])
        own = pulumi.ResourceOptions(custom_timeouts=times)
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, own))

    def program() -> None:
        pulumi.runtime.register_stack_transformation(patiently)
        loaded = load_settings({f"atlas:{key}": value for key, value in settings.items()})
        assert isinstance(loaded, AwsSettings)
        for name, value in aws.deploy(loaded, folder).items():
            pulumi.export(name, value)

    at = kubeconfig["clusters"][0]["cluster"]
    endpoint = {"endpoint": at["server"], "certificateAuthority": at["certificate-authority-data"]}
    life = Life(
        folder,
        program,
        {},
        packages=("aws", "eks", "random"),
        checkpoints=True,
        more_path=[_token_command(folder, kubeconfig), kubernetes_plugin(), docker_build_plugin()],
        environment={"ATLAS_RECORD_CLUSTER": json.dumps(endpoint), "ATLAS_RECORD_REGISTRY": registry},
    )
    given = client.Configuration()
    config.load_kube_config_from_dict(kubeconfig, client_configuration=given)
    api = client.ApiClient(given)
    stack = Stack(life, settings, folder, client.CoreV1Api(api), client.AppsV1Api(api), registry, patience)
    try:
        foreseen = life.preview()
        assert foreseen.errors == []
        done = life.up()
        assert done.errors == []
        stack.address = life.outputs()["loadBalancer"]
        yield stack
    finally:
        life.destroy()
        with suppress(client.ApiException):  # what a failed destroy left
            stack.core.delete_namespace(settings["namespace"])
        api.rest_client.pool_manager.clear()


def _token_command(folder: Path, kubeconfig: dict[str, Any]) -> Path:
    """A folder with an `aws` that answers `aws eks get-token` with the test cluster's credentials."""
    place = folder / "aws-cli"
    place.mkdir()
    (place / "credential.json").write_text(json.dumps(credential(kubeconfig)))
    command = place / "aws"
    command.write_text(f'#!/bin/sh\ncase "$*" in *"eks get-token"*) exec cat {place}/credential.json;; esac\nexit 2\n')
    command.chmod(0o755)
    return place


def credential(kubeconfig: dict[str, Any]) -> dict[str, Any]:
    """The test cluster's credentials, as `aws eks get-token` prints them."""
    user = kubeconfig["users"][0]["user"]
    status = (
        {"token": user["token"]}
        if "token" in user
        else {
            "clientCertificateData": base64.b64decode(user["client-certificate-data"]).decode(),
            "clientKeyData": base64.b64decode(user["client-key-data"]).decode(),
        }
    )
    return {"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "status": status}


def test_prediction_is_answered_by_a_restricted_pod_of_the_pushed_image(stack: Stack) -> None:
    assert stack.predict() == 200
    image = stack.life.outputs()["image"]
    repository, digest = image.removeprefix(f"{stack.registry}/").split("@")
    assert found.manifest(repository, digest)[0] == digest
    space = stack.core.read_namespace(stack.namespace)
    assert space.metadata.labels["pod-security.kubernetes.io/enforce"] == "restricted"
    [pod] = stack.pods()
    [container] = pod.spec.containers
    assert container.image == image
    assert container.resources.limits["memory"]
    assert pod.status.container_statuses[0].restart_count == 0
    within = stream(
        stack.core.connect_get_namespaced_pod_exec,
        pod.metadata.name,
        stack.namespace,
        command=["python3", "-c", "import os; print(os.getuid()); open('/app/new', 'w')"],
        stdout=True,
        stderr=True,
        _preload_content=False,
    )
    within.run_forever(timeout=30)
    said = within.read_all()
    within.close()
    within.sock.shutdown()
    assert "10001" in said.splitlines()
    assert "Read-only file system" in said


def test_nothing_to_do_when_nothing_changed(stack: Stack) -> None:
    assert (stack.life.preview().steps, stack.life.up().steps) == ({}, {})


def test_changed_settings_roll_out_without_a_failed_request(stack: Stack) -> None:
    before, [old] = stack.deployment(), [pod.metadata.name for pod in stack.pods()]
    load = Load(stack.predict)
    asking = threading.Thread(target=load.run)
    asking.start()
    try:
        done = stack.up(logLevel="debug", mlflowToken="second")
        # The old pod goes on for a while after `up` is done.
        eventually(lambda: old not in (names := [pod.metadata.name for pod in stack.pods()]) and len(names) == 1)
    finally:
        load.over.set()
        asking.join()
    assert done.errors == []
    assert done.steps[f"kubernetes:apps/v1:Deployment::{APP}-deployment"] == "update"
    after = stack.deployment()
    assert after.metadata.uid == before.metadata.uid
    assert after.status.observed_generation > before.status.observed_generation
    assert len(load.answers) > 100
    assert [answer for answer in load.answers if answer != 200] == []
    [pod] = stack.pods()
    [name] = [source.config_map_ref.name for source in pod.spec.containers[0].env_from]
    assert stack.core.read_namespaced_config_map(name, stack.namespace).data["LOG_LEVEL"] == "debug"
    maps = [found.metadata.name for found in stack.core.list_namespaced_config_map(stack.namespace).items]
    assert [each for each in maps if "settings" in each] == [name]


def test_image_that_cannot_be_pulled_fails_with_that_reason(stack: Stack) -> None:
    told = stack.broken(image=f"{stack.registry}/atlas-test/none@sha256:{'0' * 64}")
    assert "ImagePullBackOff" in told or "ErrImagePull" in told
    assert "not found" in told


def test_bundle_that_is_refused_at_start_fails_with_the_tail_of_the_log(stack: Stack) -> None:
    model = stack.folder / "models" / "bundle" / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(content[:-1])
    try:
        told = stack.broken()
    finally:
        model.write_bytes(content)
    assert "CrashLoopBackOff" in told or "exit code" in told
    assert "model.onnx" in told


def test_pod_that_never_answers_its_probe_fails(stack: Stack) -> None:
    idle = _image(stack, 'CMD ["sleep", "600"]')
    told = stack.broken(image=idle)
    assert "containers with unready status: [service]" in told
    pods = {pod.metadata.name for pod in stack.pods() if pod.spec.containers[0].image == idle}
    events = stack.core.list_namespaced_event(stack.namespace, field_selector="reason=Unhealthy").items
    assert [event for event in events if event.involved_object.name in pods and "Startup probe failed" in event.message]


def test_quota_that_leaves_no_room_fails(stack: Stack) -> None:
    hard = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": str(len(stack.pods()))}}}
    stack.core.create_namespaced_resource_quota(stack.namespace, hard)
    try:
        told = stack.broken(logLevel="warning")
        conditions = {condition.type: condition for condition in stack.deployment().status.conditions}
    finally:
        stack.core.delete_namespaced_resource_quota("full", stack.namespace)
    assert "timed out waiting to be Ready" in told
    assert "exceeded quota: full" in conditions["ReplicaFailure"].message


def test_it_recovers_and_destroy_leaves_no_object(stack: Stack) -> None:
    done = stack.up()
    assert done.errors == []
    assert stack.predict() == 200
    assert stack.life.preview().steps == {}
    gone = stack.life.destroy()
    assert gone.errors == []
    assert stack.life.state() == []
    assert stack.life.world.existing() == {}
    with pytest.raises(client.ApiException, match="404"):
        stack.core.read_namespace(stack.namespace)
    rbac = client.RbacAuthorizationV1Api(stack.core.api_client)
    everywhere: list[Any] = [*rbac.list_cluster_role().items, *rbac.list_cluster_role_binding().items]
    assert [each.metadata.name for each in everywhere if each.metadata.name.startswith(APP)] == []


def _image(stack: Stack, last: str) -> str:
    """A pushed image of one more line than the base image, by digest."""
    context = stack.folder / "idle"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {found.BASE_IMAGE}\n{last}\n")
    name = f"{stack.registry}/atlas-test/idle"
    command = ["docker", "buildx", "build", "--push", "--provenance=false", "-t", f"{name}:1", str(context)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return f"{name}@{found.manifest('atlas-test/idle', '1')[0]}"
