"""What `atlas status` says of the hosts and the cluster, by what AWS has: moto's server over HTTP."""

import base64
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pulumi
import pytest
from moto.eks.models import eks_backends

from infra.cli.status import UNSEEN
from infra.deployment.health import Health, cluster_health, host_health
from infra.engine.stack import AtlasStack
from infra.settings import AwsSettings, load_settings
from tests.infra.conftest import Checkout
from tests.infra.support.aws import BASE, DIGEST
from tests.infra.test_aws_cli import AWS, account

pytestmark = pytest.mark.slow

__all__ = ["account"]

AMI = "ami-12c6146b"  # one of moto's own


@pytest.fixture
def settings() -> AwsSettings:
    found = load_settings({f"atlas:{key}": value for key, value in BASE.items()})
    assert isinstance(found, AwsSettings)
    return found


def host(stack: str, role: str) -> str:
    tags = [
        {"Key": key, "Value": value} for key, value in (("project", "atlas"), ("stack", stack), ("component", role))
    ]
    made = boto3.client("ec2").run_instances(
        ImageId=AMI, MinCount=1, MaxCount=1, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}]
    )
    return str(made["Instances"][0]["InstanceId"])


def test_host_that_passed_its_checks_is_healthy(moto: str, settings: AwsSettings) -> None:
    identifier = host("dev", "prometheus")
    assert host_health("dev", settings, "prometheus") == Health(True, f"{identifier} running, checks passed")


def test_host_of_another_stack_or_role_is_not_it(moto: str, settings: AwsSettings) -> None:
    host("prod", "prometheus")
    host("dev", "grafana")
    assert host_health("dev", settings, "prometheus") == Health(
        False, "its instance is gone: `atlas up` creates a new instance"
    )


def test_stopped_host_is_not_healthy_and_a_terminated_one_is_gone(moto: str, settings: AwsSettings) -> None:
    identifier = host("dev", "prometheus")
    boto3.client("ec2").stop_instances(InstanceIds=[identifier])
    stopped = host_health("dev", settings, "prometheus")
    assert stopped.healthy is False
    assert f"{identifier} stopp" in stopped.what
    boto3.client("ec2").terminate_instances(InstanceIds=[identifier])
    assert "is gone" in host_health("dev", settings, "prometheus").what


def test_cluster_that_is_there_and_cannot_be_reached_is_told_apart_from_one_that_is_not(
    moto: str, settings: AwsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = cluster_health(settings)
    assert missing["cluster"].healthy is None
    assert "No cluster found" in missing["cluster"].what
    boto3.client("eks").create_cluster(
        name="flask-app-cluster", version="1.36", roleArn="arn:aws:iam::123456789012:role/r", resourcesVpcConfig={}
    )
    monkeypatch.setenv("PATH", "/nowhere")
    there = cluster_health(settings)
    assert there["cluster"] == Health(True, "Kubernetes 1.36, active")
    assert there["pods"].healthy is None
    assert "AWS CLI" in there["pods"].what


VERSION = "7c1b" * 16
POD = {
    "metadata": {"name": "flask-app-1"},
    "spec": {"containers": [{"name": "app", "image": DIGEST}], "nodeName": "node-1"},
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {
                "name": "app",
                "ready": True,
                "restartCount": 0,
                "image": DIGEST,
                "imageID": "",
                "state": {},
                "lastState": {},
            }
        ],
    },
}
DEPLOYMENT = {
    "metadata": {"name": "flask-app"},
    "spec": {
        "replicas": 1,
        "selector": {},
        "template": {"spec": {"containers": [{"name": "app", "image": DIGEST}]}},
    },
}


class Answer(http.server.BaseHTTPRequestHandler):
    """The service that is ready, and as much of the Kubernetes API as tells of its one pod."""

    def do_GET(self) -> None:
        bodies: dict[str, Any] = {
            "/health/ready": {"status": "ready", "model": {"name": "flights-late", "version": VERSION}},
            "/api/v1/namespaces/flask-app/pods": {"kind": "PodList", "items": [POD]},
            "/apis/apps/v1/namespaces/flask-app/deployments": {"kind": "DeploymentList", "items": [DEPLOYMENT]},
        }
        body = bodies.get(self.path.partition("?")[0])
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body or {}).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def healthy(
    checkout: Checkout, account: object, settings: AwsSettings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The stack dev, of which all is well but for what the caller can see of it; the Kubernetes API's address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    address = f"http://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    for role in ("prometheus", "grafana"):
        host("dev", role)
    boto3.client("eks").create_cluster(
        name="flask-app-cluster", version="1.36", roleArn="arn:aws:iam::123456789012:role/r", resourcesVpcConfig={}
    )
    monkeypatch.setenv("ATLAS_PYTHON", sys.executable)  # for the policy pack: the copy has no .venv
    AtlasStack("dev", settings, lambda _: None, checkout.path).up(lambda: pulumi.export("service", address))
    yield address
    server.shutdown()
    server.server_close()
    serving.join()


def test_pods_that_cannot_be_asked_are_unseen_and_the_bundle_is_the_one_that_the_service_tells(
    checkout: Checkout, healthy: str
) -> None:
    told = json.loads(checkout.atlas("status", "--stack", "dev", "--json", code=UNSEEN).stdout)
    assert {name: part["healthy"] for name, part in told["parts"].items()} == {
        "service": True,
        "cluster": True,
        "pods": None,
        "prometheus": True,
        "grafana": True,
    }
    assert told["bundle"] == VERSION
    shown = checkout.atlas("status", "--stack", "dev", code=UNSEEN).stdout
    assert f"answers, bundle {VERSION[:7]}" in shown


def test_stack_of_which_all_is_seen_and_well_ends_with_0(checkout: Checkout, healthy: str, tmp_path: Path) -> None:
    cluster = eks_backends["123456789012"]["us-east-1"].clusters["flask-app-cluster"]
    cluster.endpoint, cluster.certificate_authority = healthy, {"data": base64.b64encode(b"none").decode()}
    token = json.dumps({"status": {"token": "a-token"}})
    (tmp_path / "bin/aws").write_text(AWS.replace("*) exit 1", f"*get-token*) echo '{token}' ;;\n  *) exit 1"))
    told = json.loads(checkout.atlas("status", "--stack", "dev", "--json").stdout)
    assert told["healthy"] is True
    assert told["parts"]["pods"]["what"] == "1 of 1 ready, sha256:aaaaaaaaaaaa"
    assert (told["last"]["kind"], told["last"]["result"]) == ("update", "succeeded")
