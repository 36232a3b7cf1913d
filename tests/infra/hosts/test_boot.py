"""The hosts' user data: rendered, linted, small enough, and without secrets."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.hosts.boot import FILES, LIMIT, HostBoot, user_data
from infra.hosts.versions import RELEASES

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
BOOTS = {
    "prometheus": HostBoot(
        role="prometheus",
        region="us-east-1",
        config_uri="s3://atlas-dev-config-0a1b2c3d/prometheus",
        cluster="flask-app-cluster",
        volume_id="vol-0123456789abcdef0",
    ),
    "grafana": HostBoot(
        role="grafana",
        region="us-east-1",
        config_uri="s3://atlas-dev-config-0a1b2c3d/grafana",
        secret_arn="arn:aws:secretsmanager:us-east-1:123456789012:secret:atlas-dev/grafana-admin-AbCdEf",
    ),
}
LONGEST: dict[str, Any] = {
    "region": "ap-southeast-7",
    "mirror": "https://" + "mirror." * 20 + "example.com/" + "folder/" * 10,
    "endpoint_url": "https://" + "a" * 60 + ".example.com",
}


def written(text: str) -> dict[str, str]:
    return {file["path"]: file["content"] for file in yaml.safe_load(text)["write_files"]}


@pytest.mark.parametrize("role", BOOTS)
def test_rendered_as_it_should_be(role: str) -> None:
    golden = HERE / f"{role}.golden.yml"
    assert user_data(BOOTS[role]) == golden.read_text(), f"if that is meant: rewrite {golden.name}"


@pytest.mark.parametrize("role", BOOTS)
def test_ec2_takes_it_even_with_long_settings(role: str) -> None:
    boot = replace(BOOTS[role], **LONGEST, config_uri=f"s3://{'b' * 63}/{role}")
    boot = replace(boot, cluster="c" * 100) if role == "prometheus" else boot
    assert len(user_data(boot).encode()) <= LIMIT


def test_what_ec2_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match=r"user data has \d+ bytes, but EC2's limit is 16384"):
        user_data(replace(BOOTS["grafana"], mirror="https://example.com/" + "m" * 2000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config_uri": "https://bucket/prefix"}, "config_uri is 'https://bucket/prefix', not s3://BUCKET/PREFIX"),
        ({"secret_arn": None}, "secret_arn is missing"),
        ({"volume_id": "vol-x; reboot"}, "volume_id is 'vol-x; reboot'"),
    ],
)
def test_what_a_host_could_not_work_with_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        user_data(replace(BOOTS["grafana"], **change))


@pytest.mark.parametrize("role", BOOTS)
def test_releases_are_pinned_and_come_from_where_they_should(role: str) -> None:
    lines = [line.split() for line in written(user_data(BOOTS[role]))["/etc/atlas/releases"].splitlines()]
    assert [name for name, *_ in lines] == [release.name for release in RELEASES[role]]
    for name, version, sha256, url in lines:
        assert re.fullmatch(r"[0-9a-f]{64}", sha256)
        assert url.startswith("https://")
        assert version in url.rsplit("/", 1)[-1]
        assert name.split("-", maxsplit=1)[0] in url
    mirrored = written(user_data(replace(BOOTS[role], mirror="http://mirror.example/atlas/")))["/etc/atlas/releases"]
    for (name, *_, official), line in zip(lines, mirrored.splitlines(), strict=True):
        assert line.endswith(f" http://mirror.example/atlas/{name}/{official.rsplit('/', 1)[-1]}")


@settings(deadline=None, max_examples=50)
@given(
    region=st.from_regex(r"[a-z]{2}-[a-z]{4,9}-\d", fullmatch=True),
    cluster=st.text("abcXYZ0129-_' $`\"\\", min_size=1, max_size=40),
    endpoint=st.text("abc:/.?&;$`'\"\\ #!", min_size=1, max_size=40),
)
def test_settings_reach_the_shell_as_they_are(region: str, cluster: str, endpoint: str) -> None:
    boot = replace(BOOTS["prometheus"], region=region, cluster=cluster, endpoint_url=endpoint)
    environment = written(user_data(boot))["/etc/atlas/host.env"]
    shown = subprocess.run(
        ["bash", "-c", 'eval "$1"; printf "%s\\n" "$AWS_REGION" "$CLUSTER" "$AWS_ENDPOINT_URL"', "-", environment],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"{region}\n{cluster}\n{endpoint}\n"
    assert not shown.stderr


@pytest.mark.parametrize("role", BOOTS)
def test_nothing_secret_is_said(role: str) -> None:
    text = user_data(BOOTS[role])
    # Patterns of secret scanners: keys, tokens, private keys.
    for secret in (
        r"AKIA|ASIA[A-Z0-9]{16}",
        r"BEGIN [A-Z ]*PRIVATE KEY",
        r"(?i)aws_secret_access_key",
        r"k8s-aws-v1\.",
    ):
        assert not re.search(secret, text)
    # Passwords are only in files that are written on the host.
    values = re.findall(r"(?im)^\s*\w*(?:password|secret_key)\w*\s*[=:]\s*(.*)$", text)
    assert set(values) <= {"$__file{/run/credentials/grafana.service/admin-password}"}
    assert "set -x" not in text


@pytest.mark.parametrize("script", sorted(path.name for path in FILES.glob("atlas-*") if not path.suffix))
def test_scripts_pass_shellcheck(script: str) -> None:
    checker = str(Path(sys.executable).with_name("shellcheck"))
    lint = subprocess.run(
        [checker, "--severity=style", "--exclude=SC1091", str(FILES / script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr


@pytest.mark.parametrize("role", BOOTS)
def test_cloud_init_knows_every_key(role: str, image: str) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", "--interactive", image, "sh", "-c",
         "cat >/tmp/user-data && cloud-init schema --config-file /tmp/user-data"],
        input=user_data(BOOTS[role]), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid" in done.stdout


def test_every_file_is_of_use() -> None:
    shipped = {Path(path).name for boot in BOOTS.values() for path in written(user_data(boot))}
    assert {path.name for path in FILES.iterdir()} == (shipped - {"host.env", "releases"}) | {"hardening"}
