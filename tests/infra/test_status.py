"""What `atlas status` says of the hosts and the cluster, by what AWS has: moto's server over HTTP."""

import boto3
import pytest

from infra.cli.status import Part, _cluster, _host
from infra.settings import AwsSettings, load_settings
from tests.infra.aws import BASE

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
    assert _host("dev", settings, "prometheus") == Part(True, f"{identifier} running, checks passed")


def test_host_of_another_stack_or_role_is_not_it(moto: str, settings: AwsSettings) -> None:
    host("prod", "prometheus")
    host("dev", "grafana")
    assert _host("dev", settings, "prometheus") == Part(False, "its instance is gone: `atlas up` makes another")


def test_stopped_host_is_not_healthy_and_a_terminated_one_is_gone(moto: str, settings: AwsSettings) -> None:
    identifier = host("dev", "prometheus")
    boto3.client("ec2").stop_instances(InstanceIds=[identifier])
    stopped = _host("dev", settings, "prometheus")
    assert stopped.healthy is False
    assert f"{identifier} stopp" in stopped.what
    boto3.client("ec2").terminate_instances(InstanceIds=[identifier])
    assert "is gone" in _host("dev", settings, "prometheus").what


def test_cluster_that_is_there_and_cannot_be_reached_is_told_apart_from_one_that_is_not(
    moto: str, settings: AwsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = _cluster(settings)
    assert missing["cluster"].healthy is None
    assert "No cluster found" in missing["cluster"].what
    boto3.client("eks").create_cluster(
        name="flask-app-cluster", version="1.36", roleArn="arn:aws:iam::123456789012:role/r", resourcesVpcConfig={}
    )
    monkeypatch.setenv("PATH", "/nowhere")
    there = _cluster(settings)
    assert there["cluster"] == Part(True, "Kubernetes 1.36, active")
    assert there["pods"].healthy is None
    assert "AWS CLI" in there["pods"].what
