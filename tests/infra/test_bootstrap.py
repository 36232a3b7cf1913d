"""`atlas bootstrap` from an empty account and back: real command and engine, recorded AWS, moto's S3 and KMS."""

import json
import logging
import os
import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from infra.components.github_role import GITHUB
from tests.infra.conftest import Checkout
from tests.infra.recording.moto_aws import MotoRecorder
from tests.infra.recording.run import REPOSITORY, attached
from tests.infra.recording.world import World
from tests.infra.support.aws import BASE
from tests.infra.support.homes import home_without_logs
from tests.infra.support.iam import Statement, allows
from tests.infra.support.waiting import eventually
from tests.infra.test_aws_cli import AWS
from tests.infra.test_permissions import DEPLOY, PREVIEW

BUCKET = "atlas-state-123456789012-us-east-1"
BACKEND = f"s3://{BUCKET}?region=us-east-1"
PROVIDER = f"arn:aws:iam::123456789012:oidc-provider/{GITHUB}"
STATE = ".pulumi/stacks/atlas"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Account:
    """An empty account to which moto and the recorded world answer, and a checkout for it."""

    checkout: Checkout
    world: World
    requests: list[str]
    """What moto was asked: method and path with query, in order."""

    def stacks(self) -> dict[str, int]:
        """Stack -> resources, of all whose state is in the bucket."""
        entries = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"{STATE}/").get("Contents", [])
        names = [Path(entry["Key"]).stem for entry in entries if entry["Key"].endswith(".json")]
        return {name: len(self.state(name).get("resources") or []) for name in names}

    def buckets(self) -> list[str]:
        return [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]

    @property
    def file(self) -> Path:
        """bootstrap's own state, before there is a bucket."""
        return self.checkout.path / ".atlas/state" / STATE / "bootstrap.json"

    def text(self, stack: str) -> str:
        return (self.checkout.path / f"Pulumi.{stack}.yaml").read_text()

    def state(self, stack: str) -> dict[str, Any]:
        body = boto3.client("s3").get_object(Bucket=BUCKET, Key=f"{STATE}/{stack}.json")["Body"]
        latest: dict[str, Any] = json.load(body)["checkpoint"].get("latest") or {}
        return latest

    def put(self, stack: str, state: str) -> None:
        boto3.client("s3").put_object(Bucket=BUCKET, Key=f"{STATE}/{stack}.json", Body=state)

    def copy_back(self) -> None:
        """bootstrap's state into the file, as before it was moved."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_bytes(
            boto3.client("s3").get_object(Bucket=BUCKET, Key=f"{STATE}/bootstrap.json")["Body"].read()
        )

    def configure(self, **settings: object) -> None:
        """Change settings in Pulumi.bootstrap.yaml."""
        document = yaml.safe_load(self.text("bootstrap"))
        document["config"] |= {f"atlas:{key}": value for key, value in settings.items()}
        (self.checkout.path / "Pulumi.bootstrap.yaml").write_text(yaml.safe_dump(document))

    def assert_taken_up(self) -> None:
        """The next run makes nothing, and the whole state is in the bucket and nowhere else."""
        calls = len(self.world.calls())
        assert json.loads(self.checkout.atlas("bootstrap", "--json").stdout)["changes"] == {}
        assert len(self.world.calls()) == calls
        assert len(self.state("bootstrap")["resources"]) > len(self.world.existing())
        assert not self.file.exists()

    def assert_empty(self) -> None:
        assert self.world.existing() == {}
        assert self.buckets() == []

    def assert_refused(self, *told: str) -> None:
        """`atlas bootstrap` says this in one line, and makes nothing."""
        line = self.checkout.atlas("bootstrap", code=1).stderr
        assert len(line.splitlines()) == 1, line
        for text in told:
            assert re.search(text, line), line
        assert self.world.calls() == []


class Requests(logging.Handler):
    """Notes what werkzeug, moto's server, logs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r'"(?:\x1b\[\w+m)*([A-Z]+ \S+) HTTP', record.getMessage())
        if found:
            self.seen.append(found[1])


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Requests]]:
    running, requests = ThreadedMotoServer(ip_address="127.0.0.1", port=0), Requests()
    logger = logging.getLogger("werkzeug")
    logger.addHandler(requests)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}", requests
    running.stop()
    logger.removeHandler(requests)
    logger.propagate = True


@pytest.fixture
def account(
    checkout: Checkout, tmp_path: Path, server: tuple[str, Requests], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Account]:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "aws").write_text(AWS)
    (tools / "aws").chmod(0o755)
    address, requests = server
    variables = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PULUMI_HOME": str(home_without_logs(tmp_path / "pulumi")),
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "AWS_ENDPOINT_URL": address,
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
    urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST"), timeout=10)
    for stack, disposable in (("dev", True), ("prod", False)):
        document = {f"atlas:{key}": yaml.safe_load(value) for key, value in BASE.items()}
        document["atlas:disposable"] = disposable
        (checkout.path / f"Pulumi.{stack}.yaml").write_text("# ours\n" + yaml.safe_dump({"config": document}))
    (checkout.path / "Pulumi.bootstrap.yaml").write_text((REPOSITORY / "Pulumi.bootstrap.yaml").read_text())
    world = World(tmp_path / "record.jsonl")
    made = Account(checkout, world, requests.seen)
    made.configure(stacks=["dev"])  # half the roles, half the time
    with attached(world, aws=MotoRecorder) as providers:
        for name, value in providers.items():
            monkeypatch.setenv(name, value)
        yield made


def test_empty_account_gets_bucket_key_and_roles_and_goes_back(account: Account) -> None:
    account.configure(stacks=["dev", "prod"])
    done = account.checkout.atlas("bootstrap")
    assert f"export PULUMI_BACKEND_URL='{BACKEND}'" in done.stdout
    assert "gh variable set ATLAS_DEPLOY_ROLE --repo OWNER/REPO --env dev --body arn:aws:iam::123456789012:role/" in (
        done.stdout
    )
    for place in ("dev", "dev-destroy", "prod"):
        # Without a branch policy a workflow on any branch could use the environment, and so its role.
        environment = f"repos/OWNER/REPO/environments/{place}"
        assert (
            f"gh api --method PUT {environment} -F 'deployment_branch_policy[protected_branches]=false' "
            "-F 'deployment_branch_policy[custom_branch_policies]=true'\n"
            f"gh api --method POST {environment}/deployment-branch-policies -f name=main\n"
        ) in done.stdout
    assert "in a private repository this needs GitHub Pro, Team or Enterprise" in done.stdout
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

    told = json.loads(account.checkout.atlas("bootstrap", "--destroy", "--yes", "--json").stdout)
    assert any(name.endswith("-bucket") for name in told["removed"]), told
    account.assert_empty()
    assert not account.file.exists()
    for stack in ("dev", "prod"):
        assert "awskms" not in account.text(stack)
        assert "encryptedkey" not in account.text(stack)
    assert account.text("bootstrap").startswith(files["bootstrap"].split("encryptionsalt")[0])
    assert "there was nothing" in account.checkout.atlas("bootstrap", "--destroy", "--yes").stdout
    # Anew: another key, another bucket of the same name.
    account.checkout.atlas("bootstrap")
    assert account.stacks().keys() == {"bootstrap", "dev", "prod"}


def test_stack_lives_in_the_bucket_and_its_state_is_not_deleted_under_it(account: Account) -> None:
    account.checkout.atlas("bootstrap")
    file = account.checkout.path / "Pulumi.dev.yaml"
    begun = len(account.requests)
    # No variable says where the state is. Its exit status is of no matter: the recorded load balancer answers nobody.
    account.checkout.finish(account.checkout.start("up", "--stack", "dev", "--wait", "0"))
    assert_allowed(DEPLOY, account.requests[begun:], writes=True)
    assert account.stacks()["dev"] > 100
    assert account.state("dev")["secrets_providers"]["type"] == "cloud"

    begun = len(account.requests)
    cli = Path(str(shutil.which("aws")))
    cli.write_text(AWS.replace("assumed-role/deploy/", "assumed-role/atlas-preview/"))  # no admin of the cluster
    account.checkout.atlas("preview", "--stack", "dev")
    cli.write_text(AWS)
    assert_allowed(PREVIEW, account.requests[begun:], writes=False)

    refused = account.checkout.atlas("bootstrap", "--destroy", "--yes", code=1)
    assert "holds the state of dev" in refused.stderr
    assert "`atlas destroy --stack dev` first" in refused.stderr
    assert account.stacks()["dev"] > 100

    account.checkout.atlas("destroy", "--stack", "dev", "--yes")
    before = file.read_text()
    file.write_text(before.replace("config:\n", "config:\n  atlas:mlflowToken: {secure: v1:abc}\n"))
    assert "atlas:mlflowToken is a secret that only the key can read" in (
        account.checkout.atlas("bootstrap", "--destroy", "--yes", code=1).stderr
    )
    file.write_text(before)
    assert "nobody can be asked" in account.checkout.atlas("bootstrap", "--destroy", code=1).stderr
    account.checkout.atlas("bootstrap", "--destroy", "--yes")
    account.assert_empty()


def assert_allowed(given: list[Statement], requests: list[str], *, writes: bool) -> None:
    """What the engine asked of the state bucket is what the role may do."""
    asked = [request.split(" ") for request in requests if request.split(" ")[1].startswith(f"/{BUCKET}")]
    methods = {method for method, _ in asked}
    assert methods == ({"GET", "HEAD", "PUT", "DELETE"} if writes else {"GET", "HEAD"})
    for method, target in asked:
        key = target.partition("?")[0].removeprefix(f"/{BUCKET}").removeprefix("/")
        if not key:
            assert allows(given, "s3:ListBucket", f"arn:aws:s3:::{BUCKET}"), target
            continue
        action = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}[method]
        assert allows(given, f"s3:{action}", f"arn:aws:s3:::{BUCKET}/{key}"), f"{method} {target}"


def test_run_that_was_killed_before_or_after_the_copy_goes_on(account: Account) -> None:
    account.checkout.atlas("bootstrap")
    account.copy_back()
    empty = {"version": 3, "checkpoint": {"stack": "organization/atlas/bootstrap", "latest": {}}}
    account.put("bootstrap", json.dumps(empty))
    account.assert_taken_up()

    account.copy_back()
    account.assert_taken_up()


def test_run_that_is_killed_while_it_moves_its_state_is_taken_up(account: Account) -> None:
    running = account.checkout.start("bootstrap")
    eventually(lambda: BUCKET in account.buckets() and "bootstrap" in account.stacks(), "the move", pause=0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    calls = len(account.world.created())
    account.checkout.atlas("bootstrap")
    assert len(account.world.created()) == calls  # nothing is made twice
    assert account.stacks().keys() == {"bootstrap", "dev"}
    assert not account.file.exists()
    account.checkout.atlas("bootstrap", "--destroy", "--yes")
    account.assert_empty()


def test_destroy_that_failed_in_the_middle_is_taken_up(account: Account) -> None:
    account.checkout.atlas("bootstrap")
    for which in (1, 10):
        account.world.fail("delete", which, "InternalError: the service is out of order")
        failed = account.checkout.atlas("bootstrap", "--destroy", "--yes", code=1)
        assert "the service is out of order" in failed.stderr
    made = len(account.world.created())
    account.checkout.atlas("bootstrap", "--destroy", "--yes")
    account.assert_empty()
    assert len(account.world.created()) == made  # nothing is made anew, only to be deleted


def test_provider_that_is_there_is_adopted_and_left_alone(account: Account) -> None:
    client = boto3.client("iam")
    client.create_open_id_connect_provider(Url=f"https://{GITHUB}", ClientIDList=["other"])
    told = account.checkout.atlas("bootstrap", code=1).stderr
    assert "aws iam add-client-id-to-open-id-connect-provider" in told
    assert len(told.splitlines()) == 1
    client.delete_open_id_connect_provider(OpenIDConnectProviderArn=PROVIDER)
    client.create_open_id_connect_provider(Url=f"https://{GITHUB}", ClientIDList=["sts.amazonaws.com"])
    account.checkout.atlas("bootstrap")
    assert account.world.of(":OpenIdConnectProvider") == []
    trust = json.loads(account.world.of(":Role")[0].inputs["assumeRolePolicy"])
    assert trust["Statement"][0]["Principal"] == {"Federated": PROVIDER}
    account.checkout.atlas("bootstrap", "--destroy", "--yes")
    (left,) = client.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    assert left["Arn"] == PROVIDER


def test_missing_credentials_are_one_line(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    account.assert_refused("Unable to locate credentials", "log in")


def test_other_account_is_one_line(account: Account) -> None:
    account.configure(accountId="210987654321")
    account.assert_refused("belong to account 123456789012", "Pulumi.bootstrap.yaml says 210987654321")


def test_bucket_without_state_is_not_taken_over(account: Account) -> None:
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    account.assert_refused("is there, but bootstrap's state is neither in it nor in .atlas/state")


def test_stack_that_is_no_aws_stack_is_one_line(account: Account) -> None:
    account.configure(stacks=["local"])
    account.assert_refused("atlas:stacks names local, which is not an AWS stack")


def test_up_of_bootstrap_names_the_right_command(account: Account) -> None:
    told = account.checkout.atlas("up", "--stack", "bootstrap", code=1).stderr
    assert "`atlas bootstrap` creates and removes it" in told
