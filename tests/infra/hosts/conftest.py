"""Fixtures: a container as the host, and what a booting host needs: mirror, AWS, instance metadata."""

import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from infra.hosts.boot import HostBoot, user_data
from infra.hosts.versions import RELEASES, Release
from tests.infra.monitoring.tools.build import tool
from tests.infra.support.waiting import eventually

HERE = Path(__file__).parent
IMAGE = "atlas-test-host"
BASE_IMAGE = "BASE_IMAGE"
"""Environment variable with an image of Debian 12 with Python 3.11; default: a local image, else the public image."""
VOLUME_ID = "vol-0123456789abcdef0"
PASSWORD = "correct-horse-" + uuid.uuid4().hex
REGION = "us-east-1"
PROGRAMS: Mapping[str, Mapping[str, str]] = {
    "prometheus": {"prometheus": "/usr/bin/prometheus", "promtool": "/usr/bin/promtool"},
    "alertmanager": {"alertmanager": "/usr/bin/prometheus-alertmanager", "amtool": "/usr/bin/amtool"},
    "node_exporter": {"node_exporter": "/usr/bin/prometheus-node-exporter"},
}
"""Release -> program -> where Debian's package has it."""


def docker(*arguments: str, check: bool = True, **options: Any) -> str:
    """Its standard output; raises with its error output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, **options)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr}{done.stdout}")
    return done.stdout


def wait_for(what: str, ask: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true result; waits at least three minutes, because the machine may be busy.

    A question to a container costs a tenth of a second of CPU time, which the booting host lacks then: so not many.
    """
    return eventually(ask, what, max(seconds, 180), pause=2)


@pytest.fixture(scope="session")
def image() -> str:
    """The host's image, built."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("boot scripts run in a container: no Docker engine answers here")
    known = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    given = os.environ.get(BASE_IMAGE) or next((name for name in known if "python:3.11-slim" in name), None)
    base = ["--build-arg", f"BASE_IMAGE={given}"] if given else []
    for target in (
        "host",
        *(() if all(tool(name) for programs in PROGRAMS.values() for name in programs) else ("releases",)),
    ):
        built = subprocess.run(
            ["docker", "buildx", "build", "--load", "--target", target, *base, "--tag", f"{IMAGE}:{target}", "-"],
            input=(HERE / "Dockerfile").read_bytes(),
            capture_output=True,
            check=False,
        )
        if built.returncode:
            pytest.skip(f"the host's image can't be built (set {BASE_IMAGE}?): {built.stderr.decode()[-500:]}")
    return f"{IMAGE}:host"


@dataclass
class World:
    """Everything outside of the host, on an address that only containers can reach."""

    address: str
    aws: str
    mirror: str
    releases: Mapping[str, Release]
    """Releases by name, with the checksums of the mirror's files."""
    asked: list[str] = field(default_factory=list)
    """Paths that were requested from the mirror."""
    kubernetes: str = ""
    """An empty cluster's API."""
    certificate: str = ""
    """Its certificate authority's, too."""
    tokens: set[str] = field(default_factory=set)
    """What it was shown."""
    broken: dict[str, int | bytes] = field(default_factory=dict)
    """Release -> status or bytes with which the mirror answers instead; "*": for all releases."""

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.aws,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def put(self, bucket: str, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            self.client("s3").put_object(Bucket=bucket, Key=path, Body=text.encode())

    def boot(self, role: Any, bucket: str, **more: Any) -> HostBoot:
        """A host of this world."""
        return HostBoot(
            role=role,
            region=REGION,
            config_uri=f"s3://{bucket}/{role}",
            mirror=self.mirror,
            endpoint_url=self.aws,
            releases=[self.releases[release.name] for release in RELEASES[role]],
            **more,
        )


@pytest.fixture(scope="session")
def world(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Mirror, AWS and instance metadata."""
    folder = tmp_path_factory.mktemp("mirror")
    address = docker(
        "run", "--rm", "--add-host", "outside:host-gateway", image, "getent", "ahostsv4", "outside"
    ).split()[0]
    files = {"aws-cli": _aws_cli(folder), "grafana": _tarball("grafana-13", {"bin/grafana": HERE / "grafana_stand_in"})}
    for name in PROGRAMS:
        files[name] = _tarball(name, _programs(name, folder))
    releases = {
        release.name: replace(release, sha256=hashlib.sha256(files[release.name]).hexdigest())
        for role in RELEASES
        for release in RELEASES[role]
    }
    aws = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    aws.start()
    _, port = aws.get_host_and_port()
    here = World(address, f"http://{address}:{port}", "", releases)
    handler = _outside(here, files)
    servers = [http.server.ThreadingHTTPServer((address, 0), handler) for _ in range(2)]
    key, certificate = folder / "key", folder / "certificate"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2",
         "-subj", "/CN=kubernetes", "-addext", f"subjectAltName=IP:{address}", "-keyout", str(key),
         "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    servers[1].socket = tls.wrap_socket(servers[1].socket, server_side=True)
    here.mirror = f"http://{address}:{servers[0].server_port}/mirror"
    here.kubernetes, here.certificate = f"https://{address}:{servers[1].server_port}", certificate.read_text()
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield here
    for server in servers:
        server.shutdown()
        server.server_close()
    aws.stop()


def _outside(world: World, files: Mapping[str, bytes]) -> type[http.server.BaseHTTPRequestHandler]:
    expected = {f"/mirror/{name}/{world.releases[name].path.rsplit('/', 1)[-1]}": name for name in files}
    role = "/latest/meta-data/iam/security-credentials/"
    credentials = {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIAHOST",
        "SecretAccessKey": "host",
        "Token": "host",
        "LastUpdated": "2026-01-01T00:00:00Z",
        "Expiration": "2099-01-01T00:00:00Z",
    }

    class Outside(http.server.BaseHTTPRequestHandler):
        """A mirror below /mirror, an empty Kubernetes below /api; instance metadata, version 2 only, elsewhere."""

        def do_PUT(self) -> None:
            self._answer(200 if self.path == "/latest/api/token" else 404, b"session")

        def do_GET(self) -> None:
            if self.path.startswith("/mirror/"):
                name = expected.get(self.path)
                world.asked.append(self.path)
                wrong = world.broken.get("*", world.broken.get(name or ""))
                if isinstance(wrong, int) or name is None:
                    return self._answer(wrong if isinstance(wrong, int) else 404, b"")
                return self._answer(200, files[name] if wrong is None else wrong)
            if self.path.startswith("/api/"):
                world.tokens.add(self.headers.get("Authorization", ""))
                kind = "PodList" if "/pods" in self.path else "NodeList"
                document = {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}
                return self._answer(200, b"" if "watch=" in self.path else json.dumps(document).encode())
            if self.headers.get("X-aws-ec2-metadata-token") != "session":
                return self._answer(401, b"")
            known = {role: b"host-role", f"{role}host-role": json.dumps(credentials).encode()}
            found = known.get(self.path)
            return self._answer(404 if found is None else 200, found or b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if self.path.startswith("/api/"):
                self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    return Outside


def _programs(name: str, folder: Path) -> dict[str, Path]:
    """The hosts' versions if they have been built, else Debian's versions."""
    found = {program: tool(program) for program in PROGRAMS[name]}
    if all(found.values()):
        return {program: path for program, path in found.items() if path}
    container = docker("create", f"{IMAGE}:releases").strip()
    try:
        for program, path in PROGRAMS[name].items():
            docker("cp", f"{container}:{path}", str(folder / program))
    finally:
        docker("rm", container)
    return {program: folder / program for program in PROGRAMS[name]}


def _tarball(root: str, files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    # Little compression, because these archives are created for each run.
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, path in files.items():
            entry = archive.gettarinfo(str(path), f"{root}/{name}")
            # Release archives contain their builder's user ids, which don't exist here.
            entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = 0o755, 1001, 1001, "runner", "runner"
            archive.addfile(entry, io.BytesIO(path.read_bytes()))
    return buffer.getvalue()


AWS_INSTALL = """#!/bin/sh
# Like AWS's installer: a copy below --install-dir, links in --bin-dir.
set -e
while [ $# -gt 0 ]; do
  case $1 in
    --install-dir) to=$2; shift 2 ;;
    --bin-dir) bin=$2; shift 2 ;;
    --update) shift ;;
    *) echo "install: what is $1?" >&2; exit 1 ;;
  esac
done
mkdir -p "$to"
cp -r "$(dirname "$0")/dist" "$to/"
ln -sf "$to/dist/aws" "$bin/aws"
"""
AWS = """#!/bin/sh
PYTHONPATH=$(dirname "$(readlink -f "$0")")/packages exec /usr/bin/python3 -m awscli "$@"
"""


def _aws_cli(folder: Path) -> bytes:
    """An archive like AWS's, around the AWS CLI that is a Python package."""
    packages = folder / "packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*command, "--require-hashes", "--target", str(packages), "--requirement", str(HERE / "awscli.txt")],
        check=True,
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in (("aws/install", AWS_INSTALL), ("aws/dist/aws", AWS)):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, text)
        for path in sorted(packages.rglob("*")):
            inside = path.relative_to(packages)
            if path.is_file() and "examples" not in inside.parts and "__pycache__" not in inside.parts:
                archive.write(path, f"aws/dist/packages/{inside}")
    return buffer.getvalue()


class Host:
    """A container that boots with user data as an EC2 instance does."""

    def __init__(self, image: str, world: World, boot: HostBoot, folder: Path, disk: str | None = None) -> None:
        self.user_data = user_data(boot)
        self.name = f"atlas-test-{boot.role}-{uuid.uuid4().hex[:8]}"
        mounts = ["-v", f"{disk}:/disk"] if disk else []
        loop = ["--device", "/dev/loop-control", "--device-cgroup-rule", "b 7:* rmw"]
        docker(
            *("create", "--tty", "--name", self.name, "--hostname", self.name, "--cap-add", "SYS_ADMIN"),
            *("--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined", "--tmpfs", "/run", "--tmpfs"),
            *("/run/lock", "--tmpfs", "/tmp", "-v", "/sys/fs/cgroup:/sys/fs/cgroup", *loop, *mounts, image),
        )
        seed = folder / self.name
        files = {
            "var/lib/cloud/seed/nocloud/user-data": self.user_data,
            "var/lib/cloud/seed/nocloud/meta-data": f"instance-id: i-{self.name}\nlocal-hostname: {self.name}\n",
            # On an EC2 instance the address is 169.254.169.254.
            "etc/systemd/system.conf.d/metadata.conf": "[Manager]\n"
            f"DefaultEnvironment=AWS_EC2_METADATA_SERVICE_ENDPOINT={world.mirror.removesuffix('/mirror')}\n",
        }
        for path, text in files.items():
            (seed / path).parent.mkdir(parents=True, exist_ok=True)
            (seed / path).write_text(text)
        docker("cp", f"{seed}/.", f"{self.name}:/")

    def start(self) -> None:
        docker("start", self.name)

    def run(self, command: str, check: bool = True) -> str:
        """A shell command in it, as root."""
        return docker("exec", self.name, "bash", "-c", command, check=check).strip()

    def console(self) -> str:
        return docker("logs", self.name)

    def booted(self, seconds: float = 240) -> str:
        """The status that cloud-init reports after it has finished."""
        waiting = f"timeout {seconds} cloud-init status --wait"
        return wait_for(
            "end of cloud-init",
            lambda: next(
                (word for word in ("done", "error") if f"status: {word}" in self.run(waiting, check=False)),
                "",
            ),
            seconds,
        )

    def state(self, unit: str) -> str:
        return self.run(f"systemctl is-active {unit}", check=False)

    def refresh(self) -> str:
        """Run atlas-config and return the unit's state.

        The timer is stopped meanwhile, so that it can't start the unit too.
        """
        script = (
            "systemctl stop atlas-config.timer;"
            'while [ "$(systemctl show -P ActiveState atlas-config)" = activating ]; do sleep 0.2; done;'
            "systemctl start atlas-config; systemctl is-active atlas-config; systemctl start atlas-config.timer"
        )
        return self.run(script, check=False).strip().splitlines()[-1]

    def says(self, text: str) -> bool:
        """Whether this text appears on the console."""
        return bool(wait_for(repr(text), lambda: text in self.console(), 20))

    def get(self, port: int, path: str, options: str = "") -> str:
        return self.run(f"curl -sS {options} http://127.0.0.1:{port}{path}", check=False)

    def query(self, expression: str) -> list[Any]:
        """Prometheus's answer."""
        text = self.get(9090, "/api/v1/query", f"--get --data-urlencode 'query={expression}'")
        return json.loads(text)["data"]["result"] if text.startswith("{") else []

    def attach(self) -> None:
        """Do what `aws ec2 attach-volume` and udev do together."""
        link = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{VOLUME_ID.replace('-', '')}"
        self.run(
            "[ -e /disk/image ] || truncate --size 64M /disk/image; loop=$(losetup --find); "
            "[ -b $loop ] || mknod $loop b 7 ${loop#/dev/loop}; losetup $loop /disk/image; "
            f"mkdir -p /dev/disk/by-id; ln -s $loop {link}"
        )

    def release(self) -> None:
        """Detach the loop device automatically when its file system is unmounted."""
        self.run("losetup --detach-all", check=False)

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name, check=False)


@pytest.fixture(scope="module")
def hosts(
    image: str, world: World, disk: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Host]]:
    """Creates hosts, and removes them at the end, before the disk."""
    made: list[Host] = []

    def make(boot: HostBoot, disk: str | None = None) -> Host:
        made.append(Host(image, world, boot, tmp_path_factory.mktemp("seed"), disk))
        return made[-1]

    yield make
    for host in made:
        host.remove()


@pytest.fixture(scope="module")
def disk(image: str) -> Iterator[str]:
    """A Docker volume, which is kept when a host is removed."""
    name = f"atlas-test-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "--force", name, check=False)
