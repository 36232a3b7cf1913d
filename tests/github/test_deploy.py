"""The job that deploys, on a real cluster: image, pods, predictions, `dvc push`, and the rollback.

AWS and EKS are recorded, S3 and ECR's list of images are moto's, a registry of this machine holds the images. It needs
what tests/infra/test_real_cluster.py needs.
"""

import http.client
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from kubernetes import client, config

from tests.github.conftest import commit, write_stack
from tests.github.runner import Runner
from tests.github.test_jobs import VARIABLES
from tests.infra.conftest import Checkout
from tests.infra.plugins import found
from tests.infra.plugins.build import docker_build_plugin, kubernetes_plugin
from tests.infra.recording.answers import CLUSTER_ENDPOINT, REGISTRY
from tests.infra.recording.moto_aws import MotoRecorder
from tests.infra.recording.run import attached
from tests.infra.recording.world import World
from tests.infra.support.aws import BASE
from tests.infra.support.homes import home_without_logs
from tests.infra.test_aws_cli import IDENTITY
from tests.infra.test_real_cluster import credential
from tests.infra.test_release import HOST

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

APP = f"atlas-jobs-{uuid.uuid4().hex[:6]}"
"""A new name for each run, so that a killed run doesn't affect the next run."""


@dataclass
class Dev:
    """The stack dev, and ways to look at it."""

    origin: Path
    settings: dict[str, object]
    core: Any
    apps: Any

    def configure(self, **changed: object) -> None:
        """Change `main`'s stack file."""
        write_stack(self.origin, "dev", {**self.settings, **changed})
        commit(self.origin, f"dev: {', '.join(changed) or 'its settings'}")

    def image(self) -> str:
        """The image that the cluster should run."""
        return str(self.apps.read_namespaced_deployment(f"{APP}", APP).spec.template.spec.containers[0].image)

    def predict(self) -> int:
        """The status of a prediction request through the load balancer."""
        [service] = self.core.list_namespaced_service(APP).items
        connection = http.client.HTTPConnection(service.status.load_balancer.ingress[0].ip, 5000, timeout=10)
        try:
            body = json.dumps({"rows": [{"x": 0.1, "z": 0.2}]})
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture
def dev(origin: Path, runner: Runner, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dev]:
    kubeconfig, registry = found.kubeconfig(), found.registry()
    tools = tmp_path / "bin"
    tools.mkdir()
    (tmp_path / "credential.json").write_text(json.dumps(credential(kubeconfig)))
    scripts = {
        "aws": f"""case "$*" in
  --version) echo aws-cli/2.36.11 ;;
  "sts get-caller-identity"*) echo '{json.dumps(IDENTITY)}' ;;
  *"eks get-token"*) exec cat {tmp_path}/credential.json ;;
  *) exit 1 ;;
esac""",
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    at = kubeconfig["clusters"][0]["cluster"]
    (tmp_path / "state").mkdir()
    paths = [str(tools), str(kubernetes_plugin()), str(docker_build_plugin()), os.environ["PATH"]]
    variables = {
        "PATH": os.pathsep.join(paths),
        "PULUMI_BACKEND_URL": (tmp_path / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "a passphrase",
        "PULUMI_HOME": str(home_without_logs(tmp_path / "pulumi")),
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        CLUSTER_ENDPOINT: json.dumps(
            {"endpoint": at["server"], "certificateAuthority": at["certificate-authority-data"]}
        ),
        REGISTRY: registry,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    running = ExitStack()
    world = World(tmp_path / "record.jsonl")
    for name, value in running.enter_context(attached(world, ("aws", "eks", "random"), aws=MotoRecorder)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runner, "variables", {**VARIABLES, "PULUMI_BACKEND_URL": variables["PULUMI_BACKEND_URL"]})
    given = client.Configuration()
    config.load_kube_config_from_dict(kubeconfig, client_configuration=given)
    api = client.ApiClient(given)
    settings = {key: yaml.safe_load(value) for key, value in BASE.items() if key != "image"}
    settings |= {"appName": APP, "namespace": APP, "baseImage": found.BASE_IMAGE}
    stack = Dev(origin, settings, client.CoreV1Api(api), client.AppsV1Api(api))
    stack.configure()
    # The stack in the backend, as `atlas bootstrap` creates it.
    checkout = Checkout(origin, {})
    checkout.atlas("preview", "--stack", "dev")
    commit(origin, "dev has its place")
    try:
        yield stack
    finally:
        checkout.atlas("destroy", "--stack", "dev", "--yes")
        with suppress(client.ApiException):  # what a failed destroy left
            stack.core.delete_namespace(APP)
        api.rest_client.pool_manager.clear()
        running.close()


def known_to_ecr(repository: str, digest: str) -> None:
    """Add the image to the recorded ECR; the image itself is in the local registry."""
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"size": 1},
        # moto treats images with equal manifests as the same image.
        "layers": [{"digest": digest}],
    }
    boto3.client("ecr").put_image(
        repositoryName=repository, imageManifest=json.dumps(document), imageTag=digest[-12:], imageDigest=digest
    )


def test_commit_is_deployed_and_one_that_does_not_come_up_is_rolled_back(
    dev: Dev, runner: Runner, tmp_path: Path
) -> None:
    said = runner.run("push", "deploy", "deploy")
    assert runner.roles.read_text().splitlines()[-1] == f"{VARIABLES['ATLAS_DEPLOY_ROLE']} 14400"
    # From nothing to an answering service; the data and models are pushed.
    assert "A prediction, asked and answered just now" in said
    assert dev.predict() == 200
    [bucket] = [one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"] if "-data-" in one["Name"]]
    kept = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix="dvc/files/md5/")["KeyCount"]
    assert kept > 5
    repository, digest = dev.image().removeprefix(f"{found.REGISTRY}/").split("@")

    # The image is deployed by digest, and marked in ECR as good; the next run gets its data from the bucket.
    boto3.client("ecr").create_repository(repositoryName=repository)
    known_to_ecr(repository, digest)
    dev.configure(image=f"{HOST}/{repository}@{digest}")
    said = runner.run("push", "deploy", "deploy", from_nothing=True)
    assert "dvc pull: all outputs came from the remote" in said

    bad = idle(repository, tmp_path)
    known_to_ecr(repository, bad)
    dev.configure(image=f"{HOST}/{repository}@{bad}", rolloutSeconds=60)
    said = runner.run("push", "deploy", "deploy", code=1)
    assert "Startup probe failed" in said or "unready status" in said
    assert f"dev is back on {digest}, which answers" in said
    assert "atlas ci push" not in said.partition("is back on")[2]
    assert dev.image().endswith(digest)
    assert dev.predict() == 200
    assert World(tmp_path / "record.jsonl").existing() != {}


def idle(repository: str, folder: Path) -> str:
    """The digest of a pushed image that never answers."""
    context = folder / "idle"
    context.mkdir()
    (context / "Dockerfile").write_text(f'FROM {found.BASE_IMAGE}\nCMD ["sleep", "600"]\n')
    name = f"{found.REGISTRY}/{repository}:idle"
    command = ["docker", "buildx", "build", "--push", "--provenance=false", "-t", name, str(context)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return found.manifest(repository, "idle")[0]
