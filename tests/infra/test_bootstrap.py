"""`atlas bootstrap` from an empty account and back: real command and engine, recorded AWS, moto's S3 and KMS."""

import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.infra.aws import BASE
from tests.infra.conftest import Checkout
from tests.infra.recording.run import REPOSITORY, recorders
from tests.infra.recording.world import RECORD, World

BUCKET = "atlas-state-123456789012-us-east-1"
BACKEND = f"s3://{BUCKET}?region=us-east-1"
STATE = ".pulumi/stacks/atlas"

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Account:
    """An empty account to which moto and the recorded world answer, and a checkout for it."""

    checkout: Checkout
    world: World

    def stacks(self) -> dict[str, int]:
        """Stack -> resources, of all whose state is in the bucket."""
        client = boto3.client("s3")
        found = {}
        for entry in client.list_objects_v2(Bucket=BUCKET, Prefix=f"{STATE}/").get("Contents", []):
            if entry["Key"].endswith(".json"):
                body = json.load(client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"])
                latest = body["checkpoint"].get("latest") or {}
                found[Path(entry["Key"]).stem] = len(latest.get("resources") or [])
        return found

    def buckets(self) -> list[str]:
        return [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]

    @property
    def file(self) -> Path:
        """bootstrap's own state, before there is a bucket."""
        return self.checkout.path / ".atlas/state" / STATE / "bootstrap.json"

    def text(self, stack: str) -> str:
        return (self.checkout.path / f"Pulumi.{stack}.yaml").read_text()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def account(checkout: Checkout, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Account:
    tools = tmp_path / "bin"
    recorders(tools)
    (tools / "pulumi-resource-aws").write_text(
        f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m tests.infra.recording.moto_aws "$@"\n'
    )
    variables = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PULUMI_HOME": str(tmp_path / "pulumi"),
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        RECORD: str(tmp_path / "record.jsonl"),
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST"), timeout=10)
    for stack, disposable in (("dev", True), ("prod", False)):
        document = {f"atlas:{key}": yaml.safe_load(value) for key, value in BASE.items()}
        document["atlas:disposable"] = disposable
        (checkout.path / f"Pulumi.{stack}.yaml").write_text("# ours\n" + yaml.safe_dump({"config": document}))
    (checkout.path / "Pulumi.bootstrap.yaml").write_text((REPOSITORY / "Pulumi.bootstrap.yaml").read_text())
    return Account(checkout, World(tmp_path / "record.jsonl"))


def test_empty_account_gets_bucket_key_and_roles_and_goes_back(account: Account) -> None:
    done = account.checkout.atlas("bootstrap")
    assert f"export PULUMI_BACKEND_URL='{BACKEND}'" in done.stdout
    assert "gh variable set ATLAS_DEPLOY_ROLE --repo OWNER/REPO --env dev --body arn:aws:iam::123456789012:role/" in (
        done.stdout
    )
    assert account.buckets() == [BUCKET]
    stacks = account.stacks()
    assert stacks.pop("bootstrap") > len(account.world.existing()) > 20
    assert stacks == {"dev": 0, "prod": 0}
    assert not account.file.exists()
    for stack in ("dev", "prod"):
        provider = f"secretsprovider: awskms://alias/atlas-state?region=us-east-1&context_stack={stack}\n"
        assert provider in account.text(stack)
        assert re.search(r"^encryptedkey: \S+$", account.text(stack), re.MULTILINE)
        assert account.text(stack).startswith("# ours\n")

    files = {stack: account.text(stack) for stack in ("bootstrap", "dev", "prod")}
    calls = len(account.world.calls())
    again = json.loads(account.checkout.atlas("bootstrap", "--json").stdout)
    assert (again["changes"], again["initialised"]) == ({}, [])
    assert len(account.world.calls()) == calls
    assert {stack: account.text(stack) for stack in files} == files

    account.checkout.atlas("bootstrap", "--destroy", "--yes")
    assert account.world.existing() == {}
    assert account.buckets() == []
