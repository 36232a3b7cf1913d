"""The Grafana host really boots; only Grafana's program is a stub."""

import json
from collections.abc import Callable

import pytest

from infra.monitoring.grafana import provisioning
from tests.infra.hosts.conftest import PASSWORD, REGION, Host, World, docker, wait_for

pytestmark = pytest.mark.slow

BUCKET = "atlas-test-grafana"
UNITS = [
    "atlas-install.service",
    "atlas-grafana-password.service",
    "atlas-config.timer",
    "node_exporter.service",
    "grafana.service",
]


def configuration() -> dict[str, str]:
    own = provisioning(prometheus_url="http://10.0.0.1:9090", dashboards="/etc/atlas/current/dashboards")
    return {f"provisioning/{path}": text for path, text in own.items()} | {"dashboards/one.json": '{"title": "one"}'}


@pytest.fixture(scope="module")
def host(hosts: Callable[..., Host], world: World) -> Host:
    """A Grafana host that has booted."""
    world.broken.clear()
    world.client("s3").create_bucket(Bucket=BUCKET)
    world.put(BUCKET, {f"grafana/{path}": text for path, text in configuration().items()})
    secret = world.client("secretsmanager").create_secret(Name="grafana-admin", SecretString=PASSWORD)
    made = hosts(world.boot("grafana", BUCKET, secret_arn=secret["ARN"]))
    made.start()
    # The password must never appear in the process list.
    made.run(
        "nohup bash -c 'until [ -e /var/tmp/stop ]; do cat /proc/[0-9]*/cmdline 2>/dev/null; sleep 0.1; done' "
        "</dev/null >/var/tmp/processes 2>/dev/null &"
    )
    assert made.booted() == "done"
    made.run("touch /var/tmp/stop; sleep 1")
    return made


@pytest.mark.timeout(600)
def test_it_is_up(host: Host) -> None:
    assert {unit: host.state(unit) for unit in UNITS} == dict.fromkeys(UNITS, "active")
    assert host.run("systemctl --failed --no-legend", check=False) == ""
    assert json.loads(host.get(3000, "/api/health")) == {"database": "ok"}
    assert "atlas_config_ok 1" in host.get(9100, "/metrics")


@pytest.mark.timeout(600)
def test_only_the_password_of_the_secret_opens_it(host: Host) -> None:
    asked = {user: host.get(3000, "/api/org", f"-o /dev/null -w '%{{http_code}}' {user}") for user in (
        f"-u admin:{PASSWORD}", "-u admin:admin", "-u admin:", "")}  # fmt: skip
    assert list(asked.values()) == ["200", "401", "401", "401"]
    shown = json.loads(host.get(3000, "/api/org", f"-u admin:{PASSWORD}"))
    assert shown["provisioned"] == ["atlas.yml", "prometheus.yml"]


@pytest.mark.timeout(600)
def test_the_password_is_in_memory_and_nowhere_else(host: Host) -> None:
    file = "/run/atlas/grafana-password"
    assert host.run(f"stat -c '%a %U' {file}; findmnt -n -o FSTYPE -T {file}") == "600 root\ntmpfs"
    assert (
        host.run(
            "setpriv --reuid node_exporter --regid node_exporter --clear-groups cat /run/atlas/grafana-password "
            "/run/credentials/grafana.service/admin-password 2>&1",
            check=False,
        ).count("Permission denied")
        == 2
    )
    assert PASSWORD not in host.user_data
    assert PASSWORD not in host.console()
    assert PASSWORD not in host.run("journalctl --no-pager -o export")
    seen = host.run("tr '\\0' ' ' </var/tmp/processes")
    assert "secretsmanager get-secret-value" in seen  # it looked when it mattered
    assert PASSWORD not in seen
    assert PASSWORD not in host.run(
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", check=False
    )
    # No file on disk contains it either; /run is in memory. (It is passed on standard input, so that the search doesn't
    # find itself.)
    search = "grep -rlFf /dev/stdin / --exclude-dir={proc,sys,run,dev} 2>/dev/null || true"
    assert docker("exec", "--interactive", host.name, "bash", "-c", search, input=PASSWORD) == ""


@pytest.mark.timeout(600)
def test_a_changed_dashboard_arrives_and_a_broken_one_does_not(host: Host, world: World) -> None:
    process = host.run("systemctl show -p MainPID --value grafana")
    world.put(BUCKET, {"grafana/dashboards/one.json": '{"title": "two"}'})
    assert host.refresh() == "inactive"
    assert "two" in host.run("cat /etc/atlas/current/dashboards/one.json")
    assert host.run("systemctl show -p MainPID --value grafana") == process

    for path, text in {"dashboards/one.json": '{"title": ', "provisioning/datasources/prometheus.yml": "a: [b"}.items():
        world.put(BUCKET, {f"grafana/{path}": text})
        assert host.refresh() == "failed"
        assert host.says(path)
        assert "two" in host.run("cat /etc/atlas/current/dashboards/one.json")
        assert "atlas_config_ok 0" in host.get(9100, "/metrics")
        world.put(BUCKET, {f"grafana/{path}": configuration()[path]})
    assert host.refresh() == "inactive"
    assert "atlas_config_ok 1" in host.get(9100, "/metrics")


@pytest.mark.timeout(600)
def test_a_changed_data_source_restarts_grafana(host: Host, world: World) -> None:
    process = host.run("systemctl show -p MainPID --value grafana")
    path = "provisioning/datasources/prometheus.yml"
    world.put(BUCKET, {f"grafana/{path}": configuration()[path].replace("10.0.0.1", "10.0.0.2")})
    assert host.refresh() == "inactive"
    wait_for("Grafana", lambda: "ok" in host.get(3000, "/api/health"))
    assert host.run("systemctl show -p MainPID --value grafana") != process


@pytest.mark.timeout(600)
def test_an_emptied_prefix_is_refused(host: Host, world: World) -> None:
    client = world.client("s3")
    for path in configuration():
        client.delete_object(Bucket=BUCKET, Key=f"grafana/{path}")
    try:
        assert host.refresh() == "failed"
        assert host.says("data sources or dashboards are missing")
        assert host.run("ls /etc/atlas/current/dashboards") == "one.json"
    finally:
        world.put(BUCKET, {f"grafana/{path}": text for path, text in configuration().items()})
    assert host.refresh() == "inactive"


@pytest.mark.timeout(600)
def test_without_its_secret_it_does_not_start_and_says_so(hosts: Callable[..., Host], world: World, host: Host) -> None:
    arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:not-there"
    other = hosts(world.boot("grafana", BUCKET, secret_arn=arn))
    other.start()
    assert other.booted() == "error"
    assert other.says("not-there can't be read: does it exist, may this host's role read it")
    assert "000" in other.get(3000, "/api/health", "-o /dev/null -w '%{http_code}'")
    # After the secret exists, the host continues by itself.
    world.client("secretsmanager").create_secret(Name="not-there", SecretString=PASSWORD)
    wait_for("Grafana", lambda: '"ok"' in other.get(3000, "/api/health"), 150)
