"""The Prometheus host really boots: systemd, cloud-init, real programs in a container; mirror and AWS are simulated."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from infra.monitoring.alertmanager import alertmanager_config
from infra.monitoring.prometheus import aws_jobs, prometheus_config
from tests.infra.hosts.conftest import VOLUME_ID, Host, World, docker, wait_for

pytestmark = pytest.mark.slow

BUCKET = "atlas-test-prometheus"
RULES = """groups:
- name: atlas
  rules:
  - record: atlas:marker
    expr: vector({})
"""
UNITS = [
    "atlas-install.service",
    "atlas-volume.service",
    "atlas-config.timer",
    "atlas-kubelet-token.timer",
    "node_exporter.service",
    "prometheus.service",
    "alertmanager.service",
]


def configuration(world: World) -> dict[str, str]:
    jobs = aws_jobs(namespace="flask-app", app="flask-app", prometheus="127.0.0.1", grafana="127.0.0.1")
    token = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "/usr/local/bin/aws",
        "args": ["eks", "get-token", "--cluster-name", "flask-app-cluster", "--output", "json"],
        "interactiveMode": "Never",
    }
    authority = base64.b64encode(world.certificate.encode()).decode()
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "eks", "cluster": {"server": world.kubernetes, "certificate-authority-data": authority}}],
        "users": [{"name": "role", "user": {"exec": token}}],
        "contexts": [{"name": "eks", "context": {"cluster": "eks", "user": "role"}}],
        "current-context": "eks",
    }
    return {
        "prometheus.yml": prometheus_config(
            "2s", "/etc/atlas/current/rules.yml", jobs, ["127.0.0.1:9093"], retention="3d"
        ),
        "rules.yml": RULES.format(1),
        "alertmanager.yml": alertmanager_config(region="us-east-1", topic_arn="arn:aws:sns:us-east-1:123456789012:a"),
        "kubeconfig": json.dumps(kubeconfig),
        "cluster-ca.crt": world.certificate,
    }


@dataclass(frozen=True)
class Start:
    """A first start with failures: the mirror is down, then it serves a wrong file, then the volume is missing."""

    host: Host
    status: str
    """The status of cloud-init after the first try."""
    state: str
    result: str
    """systemd's state of atlas-install after the first try."""
    tries: int
    """Number of requests in the first try."""
    installed: str
    """What was installed of node_exporter after the wrong file."""
    waiting: str
    """Prometheus's state while the volume was missing."""


@pytest.fixture(scope="module")
def start(hosts: Callable[..., Host], world: World, disk: str) -> Start:
    world.client("s3").create_bucket(Bucket=BUCKET)
    world.put(BUCKET, {f"prometheus/{path}": text for path, text in configuration(world).items()})
    world.asked.clear()
    world.broken["*"] = 503
    host = hosts(world.boot("prometheus", BUCKET, cluster="flask-app-cluster", volume_id=VOLUME_ID), disk)
    host.start()
    status, tries = host.booted(), len(world.asked)
    state, result = host.state("atlas-install"), host.run("systemctl show -p Result --value atlas-install")

    world.broken.clear()
    world.broken["node_exporter"] = b"another file"
    wait_for("word of the wrong file", lambda: "is not the pinned file" in host.console(), 120)
    installed = host.run("ls /opt | grep node_exporter", check=False)

    world.broken.clear()
    wait_for("a wait for the volume", lambda: host.state("atlas-volume") == "activating", 120)
    waiting = host.state("prometheus")
    host.attach()
    wait_for("atlas-install", lambda: host.state("atlas-install") == "active", 180)
    host.release()
    return Start(host, status, state, result, tries, installed, waiting)


@pytest.fixture
def host(start: Start) -> Host:
    """A host that finally started."""
    return start.host


@pytest.mark.timeout(900)
def test_it_fails_loudly_tries_again_and_gets_there(start: Start) -> None:
    # The mirror is down: the first try fails after its retries, cloud-init reports this, and systemd tries again.
    assert start.status == "error"
    assert start.tries == 6  # curl's own retries, with back-off
    assert start.state in {"activating", "failed"}
    assert start.result == "exit-code"
    console = start.host.console()
    assert "aws-cli can't be downloaded from http" in console
    assert "set atlas:downloadMirror to a reachable mirror" in console
    assert re.search("node_exporter from http.* is not the pinned file: its SHA-256 is [0-9a-f]{64}, not", console)
    assert start.installed == ""
    assert start.waiting == "inactive"
    assert {unit: start.host.state(unit) for unit in UNITS} == dict.fromkeys(UNITS, "active")
    assert "this host is ready" in console
    assert start.host.run("systemctl --failed --no-legend | grep -v cloud-final", check=False) == ""


@pytest.mark.timeout(900)  # with the start, where it is run alone
def test_everything_answers_and_is_scraped(host: Host) -> None:
    assert "Ready" in host.get(9090, "/-/ready")
    assert host.get(9093, "/-/ready").strip() in {"OK", "Ready"}
    assert "node_filesystem_avail_bytes" in host.get(9100, "/metrics")
    wait_for("a scraped node", lambda: [s for s in host.query('up{job="node"}') if s["value"][1] == "1"])
    sizes = host.query('node_filesystem_size_bytes{mountpoint="/var/lib/prometheus"}')
    assert {s["metric"]["fstype"] for s in sizes} == {"ext4"}
    assert host.query("atlas_config_ok")[0]["value"][1] == "1"
    assert float(host.query("time() - atlas_config_timestamp_seconds")[0]["value"][1]) < 200
    alertmanagers = json.loads(host.get(9090, "/api/v1/alertmanagers"))["data"]["activeAlertmanagers"]
    assert alertmanagers == [{"url": "http://127.0.0.1:9093/api/v2/alerts"}]
    # Alertmanager is reachable only from the host itself.
    listening = host.run("ss -Hltn 'sport = :9090 or sport = :9093 or sport = :9100' | awk '{print $4}'").split()
    assert sorted(listening) == ["*:9090", "*:9100", "127.0.0.1:9093"]


@pytest.mark.timeout(900)  # with the start, where it is run alone
def test_the_kubelet_token_is_prometheus_s_alone(host: Host) -> None:
    wait_for("token", lambda: host.run("cat /run/atlas/kubelet-token", check=False).startswith("k8s-aws-v1."))
    assert host.run("stat -c '%a %U %G' /run/atlas/kubelet-token") == "640 root prometheus"
    assert host.run("findmnt -n -o FSTYPE -T /run/atlas/kubelet-token") == "tmpfs"
    assert "Permission denied" in host.run(
        "setpriv --reuid node_exporter --regid node_exporter --clear-groups cat /run/atlas/kubelet-token 2>&1",
        check=False,
    )
    before = host.run("cat /run/atlas/kubelet-token")
    host.run("sleep 1; systemctl start atlas-kubelet-token")
    assert host.run("cat /run/atlas/kubelet-token") != before
    assert "5min" in host.run("systemctl cat atlas-kubelet-token.timer")


@pytest.mark.timeout(900)  # with the start, where it is run alone
def test_prometheus_asks_kubernetes_as_the_host_s_role(host: Host, world: World) -> None:
    wait_for("request", lambda: world.tokens)
    # In its sandbox, the exec plugin found the AWS CLI, the region and the instance's credentials.
    assert all(token.startswith("Bearer k8s-aws-v1.") for token in world.tokens)


@pytest.mark.timeout(900)
def test_a_changed_rule_arrives_by_itself(host: Host, world: World) -> None:
    assert wait_for("first rule", lambda: host.query("atlas:marker"))[0]["value"][1] == "1"
    world.put(BUCKET, {"prometheus/rules.yml": RULES.format(2)})  # as many bytes as before
    wait_for("second rule", lambda: host.query("atlas:marker")[0]["value"][1] == "2", 150)
    assert host.run("systemctl show -p NRestarts --value prometheus") == "0"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("path", "text", "cause"),
    [
        ("rules.yml", "groups: [{name: a, rules: [{record: b, expr: 'sum('}]}]", "rules.yml is refused"),
        ("prometheus.yml", "global: {scrape_interval: often}", "prometheus.yml is refused"),
        ("alertmanager.yml", "route: {receiver: nobody}\nreceivers: []", "alertmanager.yml is refused"),
        (
            "prometheus.yml",
            "rule_files: [/etc/atlas/current/gone.yml]",
            "/etc/atlas/current/gone.yml is missing",
        ),
    ],
)
def test_a_broken_file_is_refused_and_the_old_ones_stay(
    host: Host, world: World, path: str, text: str, cause: str
) -> None:
    before = host.run("cat /etc/atlas/current/rules.yml /etc/atlas/current/prometheus.yml")
    world.put(BUCKET, {f"prometheus/{path}": text})
    try:
        assert host.refresh() == "failed"
        assert host.says(cause)
        assert host.run("cat /etc/atlas/current/rules.yml /etc/atlas/current/prometheus.yml") == before
        wait_for("metric of a refused one", lambda: host.query("atlas_config_ok == 0"))
        assert host.query("prometheus_config_last_reload_successful")[0]["value"][1] == "1"
    finally:
        world.put(BUCKET, {f"prometheus/{path}": configuration(world)[path]})
        assert host.refresh() == "inactive"
    wait_for("metric of a good one", lambda: host.query("atlas_config_ok == 1"))


@pytest.mark.timeout(900)  # with the start, where it is run alone
def test_a_bucket_out_of_reach_is_told_and_survived(host: Host, world: World) -> None:
    host.run("sed -i 's#CONFIG_URI=.*#CONFIG_URI=s3://no-such-bucket/prometheus#' /etc/atlas/host.env")
    try:
        assert host.refresh() == "failed"
        assert host.says("s3://no-such-bucket/prometheus can't be downloaded: does the bucket exist")
        assert host.state("prometheus") == "active"
    finally:
        host.run(f"sed -i 's#CONFIG_URI=.*#CONFIG_URI=s3://{BUCKET}/prometheus#' /etc/atlas/host.env")
        assert host.refresh() == "inactive"


@pytest.mark.timeout(900)  # with the start, where it is run alone
def test_a_second_run_changes_nothing(host: Host, world: World) -> None:
    state = (
        "systemctl show -p MainPID,NRestarts prometheus alertmanager node_exporter; stat -c '%n %Y' /opt/*/.complete;"
        "readlink /etc/atlas/current; blkid -s UUID -o value $(findmnt -n -o SOURCE /var/lib/prometheus)"
    )
    before, asked = host.run(state), len(world.asked)
    host.run("systemctl restart atlas-install")
    assert host.state("atlas-install") == "active"
    assert host.run(state) == before
    assert len(world.asked) == asked
    host.run(
        "cloud-init single --name write_files --frequency always && cloud-init single --name runcmd --frequency always "
        "&& cloud-init single --name scripts_user --frequency always"
    )
    assert host.run(state) == before
    assert len(world.asked) == asked


@pytest.mark.timeout(900)  # with the start, where it is run alone
def test_a_killed_service_comes_back(host: Host) -> None:
    before = host.run("systemctl show -p MainPID --value alertmanager")
    host.run("systemctl kill --signal=KILL alertmanager")
    wait_for("Alertmanager", lambda: host.state("alertmanager") == "active" and host.get(9093, "/-/ready"))
    assert host.run("systemctl show -p MainPID --value alertmanager") != before


@pytest.mark.timeout(900)  # with the start, where it is run alone
def test_services_are_locked_in(host: Host) -> None:
    rating = host.run(
        "systemd-analyze security --no-pager prometheus alertmanager node_exporter 2>/dev/null | grep Overall",
        check=False,
    )
    found = [float(line.split(":")[1].split()[0]) for line in rating.splitlines()]
    assert len(found) == 3
    assert max(found) < 3, rating  # systemd's scale from 0 (locked in) to 10; a bare unit has 9.6
    accounts = host.run("ps -o user:32= -C prometheus,alertmanager,node_exporter").split()
    assert sorted(accounts) == ["alertmanager", "node_exporter", "prometheus"]
    units = "/etc/systemd/system/{atlas-*,prometheus.service,alertmanager.service,node_exporter.service}"
    # Debian 12's systemd doesn't support this back-off; Ubuntu 24.04's does.
    told = host.run(f"systemd-analyze verify {units} 2>&1 | grep -v 'RestartSteps\\|RestartMaxDelaySec'", check=False)
    assert told == ""


@pytest.mark.timeout(900)
def test_data_outlives_a_restart_and_the_host_itself(
    host: Host, hosts: Callable[..., Host], world: World, disk: str
) -> None:
    first = 'min_over_time(timestamp(up{job="prometheus"})[1h:2s])'
    began = float(wait_for("data", lambda: host.query(first))[0]["value"][1])
    docker("restart", "--time", "60", host.name)
    wait_for("systemd", lambda: host.state("atlas-volume") == "activating")
    host.attach()
    wait_for("Prometheus again", lambda: host.query("up"), 120)
    wait_for("atlas-install", lambda: host.state("atlas-install") == "active", 120)
    host.release()
    assert abs(float(host.query(first)[0]["value"][1]) - began) < 5

    docker("stop", "--time", "60", host.name)
    boot = world.boot("prometheus", BUCKET, cluster="flask-app-cluster", volume_id=VOLUME_ID)
    successor = hosts(boot, disk)
    successor.start()
    # Its accounts have other user ids, because they are created in another order.
    successor.run("useradd --system somebody; useradd --system somebodyelse")
    successor.attach()
    assert successor.booted() == "done"
    successor.release()
    assert abs(float(wait_for("data", lambda: successor.query(first), 60)[0]["value"][1]) - began) < 5
    assert successor.state("prometheus") == "active"
