"""The AWS program with its container world real: image built and pushed, objects applied, predictions by a real pod.

AWS and EKS are recorded; the recorded cluster's kubeconfig leads to the one at KUBECONFIG, by the token command that
EKS's has. Needs that cluster, a Docker engine with buildx, a registry (tests/infra/plugins/found.py).
"""

import base64
import http.client
import json
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pulumi
import pytest
import yaml
from kubernetes import client, config
from kubernetes.stream import stream
from moto.server import ThreadedMotoServer

from infra.deployment.autoscaling import hand_over
from infra.deployment.by_hand import remedy
from infra.engine.events import Step
from infra.engine.stack import compare_cluster
from infra.environments import aws
from infra.names import APP_LABEL, materializer
from infra.settings import AwsSettings, load_settings
from ml.bundle import write_bundle
from ml.data_params import DataParams
from ml.features.declared import views_of
from service.access.keys import Document, Entry, hashed, new_token
from tests.bundles import EXAMPLE, make_bundle, make_parts
from tests.infra.plugins import found
from tests.infra.plugins.build import docker_build_plugin, kubernetes_plugin
from tests.infra.recording.run import Life, Result
from tests.infra.support.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
APP = f"atlas-test-{uuid.uuid4().hex[:6]}"
"""A run that was killed can't be in the way of the next."""
IMPATIENT = "30"
"""Seconds that an `up` waits for a rollout that can't succeed."""
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
    aws: dict[str, str]
    """Variables with which the pods find something that plays AWS; empty: they need no AWS."""
    address: str = ""

    @property
    def namespace(self) -> str:
        return self.settings["namespace"]

    def up(self, **settings: str) -> Result:
        """`up` with these settings changed for good."""
        self.settings |= settings
        return self.life.up()

    def broken(self, **settings: str) -> str:
        """What an `up` with these settings fails with, while every request is answered; the settings are as before."""
        before = dict(self.settings)
        with loaded(self) as load:
            done = self.up(**settings, rolloutSeconds=IMPATIENT)
        self.settings.clear()
        self.settings |= before
        assert done.failed
        load.assert_none_lost()
        return "\n".join(done.errors)

    def predict(self, key: str = "") -> int:
        """The status of one prediction through the load balancer, with an API key or without."""
        status, document = self.ask(EXAMPLE, key)
        assert status != 200 or len(document["predictions"]) == 1
        return status

    def ask(self, row: Mapping[str, Any], key: str = "") -> tuple[int, Any]:
        """Status and document of one prediction."""
        connection = http.client.HTTPConnection(self.address, 5000, timeout=5)
        try:
            body = json.dumps({"rows": [row]})
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", "/predict", body, headers | ({"X-API-Key": key} if key else {}))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether a prediction is answered."""
        with suppress(OSError, http.client.HTTPException):
            return self.predict() == 200
        return False

    def kubectl(self, *arguments: str) -> None:
        """What a person types; their editor makes the Service's port 5001."""
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        editor = os.environ | {"KUBE_EDITOR": "sed -i 's/port: 5000/port: 5001/'"}
        subprocess.run(command, check=True, capture_output=True, timeout=180, env=editor)

    def compared(self, *, save: bool) -> list[Step]:
        """What differs in the cluster from what was deployed, as `atlas` finds it."""
        return compare_cluster(self.life.stack, save=save)

    def set_back(self) -> Result:
        """What `atlas up` does after something was changed by hand."""
        self.compared(save=True)
        return self.life.up()

    def pods(self) -> list[Any]:
        return list(self.core.list_namespaced_pod(self.namespace).items)

    def pod_names(self) -> list[str]:
        return [pod.metadata.name for pod in self.pods()]

    def token_name(self) -> str:
        """The name of the Secret that the pods use."""
        [container] = self.deployment().spec.template.spec.containers
        return str(container.env[0].value_from.secret_key_ref.name)

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

    def assert_none_lost(self) -> None:
        """Every request was answered with a prediction."""
        assert len(self.answers) > 20
        assert [answer for answer in self.answers if answer != 200] == []


@contextmanager
def loaded(stack: Stack) -> Iterator[Load]:
    """Predictions while the code inside runs."""
    load = Load(stack.predict)
    asking = threading.Thread(target=load.run)
    asking.start()
    try:
        yield load
    finally:
        load.over.set()
        asking.join()


@contextmanager
def none_lost(stack: Stack) -> Iterator[None]:
    """Every request is answered while the code inside runs, and until there are no more pods than wanted."""
    with loaded(stack) as load:
        yield
        # A pod that is to go still answers after `up` is done.
        eventually(lambda: len(stack.pod_names()) == stack.deployment().spec.replicas, "the end of the pods before")
    load.assert_none_lost()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    kubeconfig, registry = found.kubeconfig(), found.registry()
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
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
        "nodeType": "t3.medium",  # for three pods beside the materialiser
        "mlflowToken": "first",
    }

    aws_played: dict[str, str] = {}

    def program() -> None:
        pulumi.runtime.register_stack_transformation(lambda args: played(args, aws_played))
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
    stack = Stack(life, settings, folder, client.CoreV1Api(api), client.AppsV1Api(api), registry, aws_played)
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


def played(
    args: pulumi.ResourceTransformationArgs, aws_played: Mapping[str, str]
) -> pulumi.ResourceTransformationResult | None:
    """The table's name is known before it is made, and pods get the variables."""
    if not aws_played:
        return None
    if args.type_ == "aws:dynamodb/table:Table":
        return pulumi.ResourceTransformationResult({**args.props, "name": APP}, args.opts)
    if args.type_ == "kubernetes:core/v1:ConfigMap":
        data: Any = args.props["data"]
        return pulumi.ResourceTransformationResult({**args.props, "data": data | aws_played}, args.opts)
    if args.type_ == "kubernetes:apps/v1:Deployment" and "materializer" in args.name:
        spec: Any = args.props["spec"]
        [container] = spec.template.spec.containers
        container.env = [*container.env, *({"name": name, "value": value} for name, value in aws_played.items())]
    return None


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
    # The two streams arrive in any order, and one's line within the other's: each is read by itself.
    output, errors = within.read_stdout(timeout=1), within.read_stderr(timeout=1)
    within.close()
    within.sock.shutdown()
    assert output == "10001\n"
    assert "Read-only file system" in errors


def test_nothing_to_do_when_nothing_changed(stack: Stack) -> None:
    assert (stack.life.preview().steps, stack.life.up().steps) == ({}, {})


@pytest.mark.parametrize(
    ("setting", "value", "replaced"),
    [
        ("logLevel", "debug", "core/v1:ConfigMap::{app}-settings"),
        ("mlflowToken", "second", "core/v1:Secret::capstone-secret"),
    ],
)
def test_changed_setting_rolls_out_without_a_failed_request(
    stack: Stack, setting: str, value: str, replaced: str
) -> None:
    before, [old] = stack.deployment(), stack.pod_names()
    with none_lost(stack):
        done = stack.up(**{setting: value})
    assert old not in stack.pod_names()
    assert done.errors == []
    assert done.steps == {
        f"kubernetes:{replaced.format(app=APP)}": "replace",
        f"kubernetes:apps/v1:Deployment::{APP}-deployment": "update",
    }
    after = stack.deployment()
    assert after.metadata.uid == before.metadata.uid
    assert after.status.observed_generation > before.status.observed_generation


def test_pod_has_the_new_settings_and_the_old_objects_are_gone(stack: Stack) -> None:
    [pod] = stack.pods()
    [container] = pod.spec.containers
    [name] = [source.config_map_ref.name for source in container.env_from]
    assert stack.core.read_namespaced_config_map(name, stack.namespace).data["LOG_LEVEL"] == "debug"
    maps = [found.metadata.name for found in stack.core.list_namespaced_config_map(stack.namespace).items]
    assert [each for each in maps if "settings" in each] == [name]
    [token] = [variable.value_from.secret_key_ref for variable in container.env if variable.value_from]
    secret = stack.core.read_namespaced_secret(token.name, stack.namespace)
    assert base64.b64decode(secret.data[token.key]) == b"second"
    secrets = [found.metadata.name for found in stack.core.list_namespaced_secret(stack.namespace).items]
    assert [each for each in secrets if each.startswith("capstone-secret")] == [token.name]


BY_HAND: Mapping[str, tuple[Sequence[str], str, str]] = {
    # What a person types, the object that the preview names, the field that it names.
    "scaled": (("scale", f"deployment/{APP}", "--replicas=2"), "deployment", "spec.replicas"),
    "limited": (
        ("set", "resources", f"deployment/{APP}", "--limits=memory=600Mi"),
        "deployment",
        "spec.template.spec.containers[0].resources.limits.memory",
    ),
    "edited": (("edit", "service/flask-app-service"), "service", "spec.ports[0].port"),
}


@pytest.mark.parametrize("change", BY_HAND)
def test_field_changed_by_hand_is_shown_and_set_back(stack: Stack, change: str) -> None:
    command, part, path = BY_HAND[change]
    # The edited Service has another port, where nobody asks.
    with none_lost(stack) if part == "deployment" else nullcontext():
        stack.kubectl(*command)
        before = stack.life.state()
        shown = [step for step in stack.compared(save=False) if path in step.paths]
        assert [(step.name, step.operation) for step in shown] == [(f"{APP}-{part}", "update")]
        assert stack.life.state() == before, "a preview changes no state"
        done = stack.set_back()
    assert done.errors == []
    assert (
        done.steps[f"kubernetes:{'core' if part == 'service' else 'apps'}/v1:{part.title()}::{APP}-{part}"] == "update"
    )
    assert stack.deployment().spec.replicas == 1
    assert stack.deployment().spec.template.spec.containers[0].resources.limits["memory"] == "512Mi"
    assert stack.predict() == 200
    assert stack.compared(save=False) == []


def test_change_rolls_out_after_a_person_scaled_and_nobody_looked(stack: Stack) -> None:
    """As plain `pulumi up` does it: without a look at the cluster first."""
    with none_lost(stack):
        stack.kubectl("scale", f"deployment/{APP}", "--replicas=2")
        assert stack.up(logLevel="info").errors == []
    assert stack.deployment().spec.replicas == 1


def test_new_api_key_reaches_the_pods_that_run(stack: Stack) -> None:
    def keep(*tokens: str) -> None:
        entries = [Entry(f"caller-{number}", hashed(token)) for number, token in enumerate(tokens)]
        (stack.folder / "keys.json").write_bytes(msgspec.json.encode(Document(entries)))

    old, new = new_token(), new_token()
    keep(old)
    assert stack.up(apiKeysFile="keys.json").errors == []
    assert (stack.predict(), stack.predict(old), stack.predict(new)) == (401, 200, 401)
    eventually(lambda: len(stack.pod_names()) == 1, "the end of the pod before")
    pods = stack.pod_names()
    keep(old, new)
    done = stack.up()
    assert (done.errors, list(done.steps.values())) == ([], ["update"])
    # kubelet renews a mounted Secret once a minute or so.
    eventually(lambda: stack.predict(new) == 200, "the new key", patience=180, pause=1)
    assert stack.predict(old) == 200
    assert stack.pod_names() == pods
    del stack.settings["apiKeysFile"]
    assert stack.up().errors == []
    assert stack.predict() == 200


def test_autoscaler_takes_over_the_pods_that_there_are(stack: Stack) -> None:
    assert stack.up(replicas="2").errors == []
    pods = set(stack.pod_names())
    assert hand_over(stack.core.api_client, stack.namespace, APP) == 2
    assert stack.up(maxReplicas="3").errors == []
    assert stack.deployment().spec.replicas == 2
    assert pods <= set(stack.pod_names())
    # The autoscaler's own way to change it; the program leaves it alone from here on.
    stack.kubectl("scale", f"deployment/{APP}", "--replicas=3")
    stack.kubectl("rollout", "status", f"deployment/{APP}", "--timeout=120s")
    assert stack.compared(save=False) == []
    assert stack.set_back().steps == {}
    assert stack.deployment().spec.replicas == 3
    del stack.settings["maxReplicas"]
    assert stack.up(replicas="1").errors == []
    # The engine deletes the autoscaler last: it may have acted once more.
    assert stack.set_back().errors == []
    assert stack.deployment().spec.replicas == 1
    assert hand_over(stack.core.api_client, stack.namespace, "another") is None


@pytest.mark.parametrize(
    "command",
    [
        ("annotate", "deployment/APP", "note=mine"),
        ("label", "service/flask-app-service", "team=flights"),
        ("rollout", "restart", "deployment/APP"),
        ("delete", "pod", "--all"),
        ("create", "quota", "roomy", "--hard=pods=10"),
    ],
    ids=" ".join,
)
def test_what_the_program_does_not_set_is_left_to_people(stack: Stack, command: tuple[str, ...]) -> None:
    # The name is put in here: a worker of pytest-xdist must collect the same tests as every other.
    with none_lost(stack) if command[0] != "delete" else nullcontext():
        stack.kubectl(*(part.replace("APP", APP) for part in command))
        stack.kubectl("rollout", "status", f"deployment/{APP}", "--timeout=120s")
        before = stack.deployment()
        assert stack.compared(save=False) == []
        done = stack.set_back()
    assert (done.errors, done.steps) == ([], {})
    after = stack.deployment()
    assert after.metadata.annotations == before.metadata.annotations
    assert after.metadata.generation == before.metadata.generation, "it isn't restarted again"
    assert stack.predict() == 200


@pytest.mark.parametrize("kind", ["service", "secret", "deployment", "namespace"])
def test_object_deleted_by_hand_is_shown_and_created_again(stack: Stack, kind: str) -> None:
    names = {
        "service": "flask-app-service",
        "secret": stack.token_name(),
        "deployment": APP,
        "namespace": stack.namespace,
    }
    stack.kubectl("delete", kind, names[kind])
    gone = {step.name for step in stack.compared(save=False) if step.operation == "delete"}
    assert (f"{APP}-{kind}" if kind != "secret" else "capstone-secret") in gone
    if kind == "namespace":
        assert len(gone) > 8
        # Without a look at the cluster first, `up` fails, and a line says what to do.
        assert "atlas refresh --stack dev" in remedy("dev", stack.up(logLevel="warning").errors)
    done = stack.set_back()
    assert done.errors == []
    stack.address = stack.life.outputs()["loadBalancer"]
    eventually(stack.answers)
    assert stack.compared(save=False) == []
    assert stack.life.preview().steps == {}


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
    # The broken pods of the tests before leave first: each that ends under the quota makes room for a new one.
    assert stack.up().errors == []
    wanted = stack.deployment().spec.replicas
    # A pod whose process ignores SIGTERM, as `sleep` does, stays for its whole grace period.
    eventually(lambda: len(stack.pods()) == wanted, "the end of the broken pods", patience=150)
    hard = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": str(len(stack.pods()))}}}
    stack.core.create_namespaced_resource_quota(stack.namespace, hard)
    try:
        told = stack.broken(logLevel="error")
        conditions = {condition.type: condition for condition in stack.deployment().status.conditions}
    finally:
        stack.core.delete_namespaced_resource_quota("full", stack.namespace)
    assert "timed out waiting to be Ready" in told
    assert "exceeded quota: full" in conditions["ReplicaFailure"].message


VIEWED: dict[str, Any] = {
    "source": "table", "uri": "table.csv", "target": "returned", "task": "binary", "time": "seen", "horizon": "2h",
    "views": {
        "shops": {"uri": "shops.csv", "keys": ["shop"], "timestamp": "at", "features": ["visits"]}
    },
}  # fmt: skip
"""The section `data` of a model that looks up how many visits a shop has."""


def test_pods_look_up_what_the_materializer_wrote_and_its_successor_goes_on(stack: Stack) -> None:
    bundle = stack.folder / "models" / "viewed"
    views = views_of(DataParams.model_validate(VIEWED))
    write_bundle(bundle, replace(make_parts(), views=views))
    (stack.folder / "params.yaml").write_text(yaml.safe_dump({"data": VIEWED}))
    [node, *_] = stack.core.list_node().items
    [address] = [each.address for each in node.status.addresses if each.type == "InternalIP"]
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    try:
        access = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        stack.aws.update(AWS_ENDPOINT_URL="http://{}:{}".format(*server.get_host_and_port()), **access)
        [url, key, secret] = stack.aws.values()
        session = boto3.Session(key, secret, region_name="us-east-1")
        dynamodb, s3 = session.client("dynamodb", endpoint_url=url), session.client("s3", endpoint_url=url)
        kinds = {"entity": "S", "bucket": "N"}
        dynamodb.create_table(
            TableName=APP,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in kinds.items()],
            KeySchema=[
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(kinds, ("HASH", "RANGE"), strict=True)
            ],
        )
        bucket = stack.life.outputs()["dvcRemote"].split("/")[2]
        s3.create_bucket(Bucket=bucket)

        def put(visits: int) -> None:
            s3.put_object(Bucket=bucket, Key="features/shops.csv", Body=f"shop,at,visits\nnorth,2026-01-01,{visits}\n")

        def looked_up() -> Any:
            row = {**EXAMPLE, "seen": datetime.now(UTC).isoformat()}
            del row["visits"]
            status, answer = stack.ask(row)
            assert status == 200
            # A pod of the model before, which looks nothing up, still answers for a while.
            [found] = answer["predictions"]
            return found.get("features", {}).get("looked_up", {}).get("visits", {}).get("value")

        put(5)
        assert stack.up(bundle="models/viewed").errors == []
        eventually(lambda: looked_up() == 5, "the value that the materialiser wrote", patience=120)

        def pod() -> Any:
            found = stack.core.list_namespaced_pod(stack.namespace, label_selector=f"{APP_LABEL}={materializer(APP)}")
            return found.items[0] if len(found.items) == 1 else None

        old = pod()
        assert old.status.container_statuses[0].restart_count == 0
        put(6)
        stack.kubectl("delete", "pod", old.metadata.name)
        assert pod().metadata.uid != old.metadata.uid
        eventually(lambda: looked_up() == 6, "the value that its successor wrote", patience=120)
        eventually(lambda: pod().status.container_statuses[0].ready, "the successor's readiness")
        stack.aws.clear()
        del stack.settings["bundle"]
        assert stack.up().errors == []
    finally:
        stack.aws.clear()
        stack.settings.pop("bundle", None)
        server.stop()


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
