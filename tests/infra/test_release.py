"""An image goes from one stack to another, and back: real command and engine, recorded AWS, moto's ECR."""

import hashlib
import http.server
import io
import json
import os
import random
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from infra.cli.common import agree as _agree
from infra.components.registry import GOOD
from infra.deployment.images import MANIFESTS, copy_between
from tests.infra.conftest import Checkout
from tests.infra.recording.moto_aws import MotoRecorder
from tests.infra.recording.run import SAVED_AT_THE_END, attached
from tests.infra.recording.world import RECORD, World
from tests.infra.support.aws import BASE
from tests.infra.support.homes import home_without_logs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
HOST = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
IDENTITY = {"Account": "123456789012", "Arn": "arn:aws:sts::123456789012:assumed-role/deploy/me"}
AWS = f"""#!/bin/sh
case "$*" in
  --version) echo aws-cli/2.36.11 ;;
  "sts get-caller-identity"*) echo '{json.dumps(IDENTITY)}' ;;
  *) exit 1 ;;
esac
"""
DOCKER = f"""#!{sys.executable}
import json, pathlib, sys
import boto3
if "imagetools" not in sys.argv:
    sys.exit(0)
folder = sys.argv[sys.argv.index("--config") + 1]
auths = json.loads((pathlib.Path(folder) / "config.json").read_text())["auths"]
assert set(auths) == {{"{HOST}"}} and auths["{HOST}"]["auth"]
assert (pathlib.Path(folder) / "config.json").stat().st_mode & 0o077 == 0
target, source = sys.argv[sys.argv.index("--tag") + 1], sys.argv[-1]
name, _, digest = source.removeprefix("{HOST}/").partition("@")
copy, _, tag = target.removeprefix("{HOST}/").partition(":")
ecr = boto3.client("ecr")
found = ecr.batch_get_image(repositoryName=name, imageIds=[{{"imageDigest": digest}}])["images"]
if not found:
    sys.exit("ERROR: " + source + ": not found")
if not any(one["repositoryName"] == copy for one in ecr.describe_repositories()["repositories"]):
    ecr.create_repository(repositoryName=copy)
ecr.put_image(repositoryName=copy, imageManifest=found[0]["imageManifest"], imageTag=tag, imageDigest=digest)
"""
"""Docker's tool, as far as it copies an image from one repository of moto's to another."""


class Account:
    """What the recorded account has, and what answers at its load balancers."""

    def __init__(self, checkout: Checkout, records: Path, healthy: threading.Event, running: ExitStack) -> None:
        self.checkout, self.records, self.healthy, self._running = checkout, records, healthy, running
        self._providers: dict[str, dict[str, str]] = {}
        self.ecr = boto3.client("ecr")
        self.ecr.create_repository(repositoryName="atlas-dev/flask-app")
        self.write("dev", image=f"{HOST}/atlas-dev/flask-app@{self.push(1)}")
        self.write("prod", image="promoted", clusterName="flask-app-prod", vpcCidr="10.30.0.0/16")

    def atlas(self, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """The command, on the stack's own recorded world: two clusters have an object of one name each."""
        stack = arguments[arguments.index("--stack") + 1] if "--stack" in arguments else arguments[2]
        os.environ.update(self.providers(stack))
        return self.checkout.atlas(*arguments, code=code)

    def providers(self, stack: str) -> dict[str, str]:
        """The variables by which an engine finds the providers of the stack's own recorded world."""
        if stack not in self._providers:
            self._providers[stack] = self._running.enter_context(attached(self.world(stack), aws=MotoRecorder))
        return self._providers[stack]

    def world(self, stack: str) -> World:
        return World(self.records / f"{stack}.jsonl")

    def settings(self, stack: str) -> dict[str, object]:
        """Those of the stack's file."""
        config = yaml.safe_load((self.checkout.path / f"Pulumi.{stack}.yaml").read_text())["config"]
        return {key.removeprefix("atlas:"): value for key, value in config.items()}

    def write(self, stack: str, **changed: object) -> None:
        document = {f"atlas:{key}": yaml.safe_load(value) for key, value in BASE.items()}
        document |= {f"atlas:{key}": value for key, value in changed.items()}
        file = self.checkout.path / f"Pulumi.{stack}.yaml"
        kept = yaml.safe_load(file.read_text()) if file.is_file() else {}
        own = {key: value for key, value in (kept or {}).items() if key == "encryptionsalt"}
        file.write_text(yaml.safe_dump({**own, "config": document}))

    def push(self, number: int) -> str:
        """Another image in dev's repository; its digest, as moto makes one of its layers."""
        layer = f"sha256:{number:064x}"
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"size": 1}, "layers": [{"digest": layer}]}
        with suppress(self.ecr.exceptions.ImageAlreadyExistsException):
            self.ecr.put_image(
                repositoryName="atlas-dev/flask-app", imageManifest=json.dumps(document), imageTag=f"build-{number}"
            )
        return "sha256:" + hashlib.sha256(layer.encode()).hexdigest()

    def deploy(self, number: int) -> str:
        digest = self.push(number)
        self.write("dev", image=f"{HOST}/atlas-dev/flask-app@{digest}")
        self.atlas("up", "--stack", "dev", "--wait", "1")
        return digest

    def good(self, stack: str) -> list[str]:
        """Digests that are marked good, by their marks' times."""
        images = self.ecr.describe_images(repositoryName=f"atlas-{stack}/flask-app")["imageDetails"]
        marks = [
            (tag, one["imageDigest"]) for one in images for tag in one.get("imageTags", []) if tag.startswith(GOOD)
        ]
        return [digest for _, digest in sorted(marks)]

    def runs(self, stack: str) -> str:
        """What the service's Deployment was last asked to run."""
        calls = self.world(stack).existing().values()
        (deployment,) = [call for call in calls if call.urn.endswith(":Deployment::flask-app-deployment")]
        return str(deployment.inputs["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.fixture
def account(checkout: Checkout, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with account_in(checkout, tmp_path, monkeypatch) as made:
        yield made


@contextmanager
def account_in(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Two stacks' settings in the checkout, the recorders' account, and what answers at its load balancers."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("aws", AWS), ("docker", DOCKER)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "state").mkdir()
    healthy = threading.Event()
    healthy.set()
    balancer = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"
    variables = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PULUMI_BACKEND_URL": (tmp_path / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "a passphrase",
        "PULUMI_HOME": str(home_without_logs(tmp_path / "pulumi")),
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        **SAVED_AT_THE_END,
        "ATLAS_TEST_BALANCER": balancer,
        **dict.fromkeys((RECORD, "PULUMI_DEBUG_PROVIDERS"), ""),  # each command has its stack's
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server = http.server.ThreadingHTTPServer((balancer, 5000), _handler(healthy))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    with ExitStack() as running:
        yield Account(checkout, tmp_path, healthy, running)
    server.shutdown()
    server.server_close()
    serving.join()


def _handler(healthy: threading.Event) -> type[http.server.BaseHTTPRequestHandler]:
    """The part of the service that a prediction takes; while it isn't healthy all answers are 500."""
    content = {"application/json": {"example": {"rows": [{"a": 1}]}}}
    document = {
        "paths": {"/predict": {"post": {"requestBody": {"content": content}}}},
        "components": {"schemas": {"Row": {"required": ["a"]}}},
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self, body: Any) -> None:
            self.send_response(200 if healthy.is_set() else 500)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_GET(self) -> None:
            self._answer(document)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer({"predictions": [{"prediction": "no"}]})

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def test_image_of_dev_goes_to_prod_and_back_by_its_digest_alone(account: Account) -> None:
    atlas = account.atlas
    first = account.deploy(1)
    assert account.good("dev") == [first]

    # Nothing was promoted yet.
    nothing = atlas("up", "--stack", "prod", code=1)
    assert "nothing was promoted to prod yet: `atlas promote dev prod` deploys an image" in nothing.stderr
    refused = atlas("promote", "dev", "prod", code=1)
    assert "`atlas promote dev prod --yes`" in refused.stderr

    promoted = json.loads(atlas("promote", "dev", "prod", "--yes", "--json", "--wait", "1").stdout)
    assert promoted["outputs"]["image"] == f"{HOST}/atlas-prod/flask-app@{first}" == account.runs("prod")
    assert promoted["foreseen"]["flask-app-deployment"] == "create"
    assert promoted["example"]["answer"]["predictions"]
    assert account.good("prod") == [first]
    # From then on `up` keeps it.
    again = json.loads(atlas("up", "--stack", "prod", "--json", "--wait", "1").stdout)
    assert "flask-app-deployment" not in again["changes"]
    assert account.runs("prod").endswith(first)
    assert account.good("prod") == [first]
    assert "has " + first + " already" in atlas("promote", "dev", "prod", "--yes", "--wait", "1").stderr

    second = account.deploy(2)
    shown = atlas("promote", "dev", "prod", "--yes", "--wait", "1").stdout
    assert first in shown
    assert second in shown
    assert account.runs("prod").endswith(second)
    assert account.good("prod") == [first, second]

    back = atlas("rollback", "--stack", "prod", "--yes", "--wait", "1")
    assert account.runs("prod").endswith(first)
    assert "A prediction, asked and answered just now" in back.stdout
    missing = atlas("rollback", "--stack", "prod", "--to", "sha256:" + "e" * 64, "--yes", code=1)
    assert f"atlas-prod/flask-app has no sha256:{'e' * 64}; these have answered: " in missing.stderr
    assert missing.stderr.count("\n") == 1
    atlas("rollback", "--stack", "prod", "--to", second, "--yes", "--wait", "1")
    assert account.runs("prod").endswith(second)


def test_image_that_gives_no_prediction_is_not_good_and_is_rolled_back(account: Account) -> None:
    atlas = account.atlas
    first = account.deploy(1)
    second = account.push(2)
    account.write("dev", image=f"{HOST}/atlas-dev/flask-app@{second}")
    account.healthy.clear()
    failed = atlas("up", "--stack", "dev", "--wait", "1", code=1)
    assert "`atlas rollback --stack dev`" in failed.stderr.splitlines()[-1]
    assert account.good("dev") == [first]
    # What the file fixes can't be rolled back for longer than to the next `up`.
    assert "sets atlas:image: change the digest there" in atlas("rollback", "--stack", "dev", "--yes", code=1).stderr
    # It is the deployment that goes back by itself.
    failed = atlas("up", "--stack", "dev", "--wait", "1", "--rollback-on-failure", code=1)
    assert f"{first} is back, but gives no prediction either" in failed.stderr
    assert account.runs("dev").endswith(first)
    account.healthy.set()
    # Without a prediction nothing is said of the image.
    atlas("up", "--stack", "dev", "--no-smoke")
    assert account.runs("dev").endswith(second)
    assert account.good("dev") == [first]


def test_pods_that_do_not_come_up_are_rolled_back(account: Account) -> None:
    first = account.deploy(1)
    second = account.push(2)
    account.write("dev", image=f"{HOST}/atlas-dev/flask-app@{second}")
    service = "::flask-app-deployment"
    account.world("dev").fail_each_once("update", "0 of 1 pods are ready", tokens=(service,), half=True)
    failed = account.atlas("up", "--stack", "dev", "--wait", "1", "--rollback-on-failure", code=1)
    assert "0 of 1 pods are ready" in failed.stderr
    assert f"dev is back on {first}, which answers" in failed.stderr
    assert account.runs("dev").endswith(first)


def test_image_that_is_not_in_the_stacks_own_repository_is_told_before_anything_is_made(account: Account) -> None:
    missing = "sha256:" + "e" * 64
    account.write("dev", image=f"{HOST}/atlas-dev/flask-app@{missing}")
    failed = account.atlas("up", "--stack", "dev", code=1)
    assert failed.stderr == (
        f"atlas: atlas-dev/flask-app has no {missing}, which atlas:image in Pulumi.dev.yaml names: nothing changed\n"
    )
    assert not list(account.records.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("promote", "dev", "dev"), "dev can't be promoted to itself"),
        (("promote", "dev", "nope"), "there is no stack 'nope'"),
        (("promote", "local", "prod"), "the stack local runs no image"),
        (("promote", "dev", "prod", "--yes"), "dev runs no image of its own repository: `atlas up --stack dev` first"),
        (("promote", "prod", "dev", "--yes"), "Pulumi.dev.yaml must say `atlas:image: promoted`"),
        (("rollback", "--stack", "local"), "the stack local runs no image"),
        (("rollback", "--stack", "prod", "--yes"), "prod runs no image of its own repository"),
    ],
)
def test_mistake_is_one_clear_line(account: Account, arguments: tuple[str, ...], told: str) -> None:
    failed = account.atlas(*arguments, code=1)
    assert told in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not list(account.records.glob("*.jsonl"))


def test_question_goes_to_standard_error_where_no_document_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO("y\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    _agree("Deploy it?", yes=False, command="atlas rollback --yes")
    told = capsys.readouterr()
    assert "Deploy it? [y/N]:" in told.err
    assert told.out.strip() == ""  # the space before the answer is Python's own


def test_copy_between_registries_keeps_the_digest() -> None:
    """Docker's own tool on a real registry; ATLAS_TEST_BASE_IMAGE names an image in one that can be written."""
    base = os.environ.get("ATLAS_TEST_BASE_IMAGE", "")
    registry, _, path = base.partition("/")
    if not registry.startswith("127."):
        pytest.skip("no registry of this machine's own: ATLAS_TEST_BASE_IMAGE names none")
    digest = _digest(registry, *path.rsplit(":", 1))
    copy_between(f"{registry}/{path.rsplit(':', 1)[0]}@{digest}", f"{registry}/atlas-test/promoted:1", {})
    assert _digest(registry, "atlas-test/promoted", "1") == digest


def _digest(registry: str, name: str, tag: str) -> str:
    request = urllib.request.Request(
        f"http://{registry}/v2/{name}/manifests/{tag}", headers={"Accept": ",".join(MANIFESTS)}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return str(response.headers["Docker-Content-Digest"])
