"""The local stack on the real engine: its whole life, and each way it can fail."""

import http.server
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from infra.local.supervisor import Supervisord
from ml.bundle import write_bundle
from ml.features import flight_views
from ml.features.views import HOUR
from tests.bundles import make_bundle, make_parts
from tests.infra.conftest import Checkout, listens, marked
from tests.infra.support.waiting import eventually

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _prometheus() -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not on PATH: `apt-get install prometheus`")


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    eventually(condition, patience=seconds, pause=0.1)


def asked(checkout: Checkout, query: str) -> float:
    """Prometheus's answer to the query; 0 when it has none."""
    result = json.loads(checkout.get("prometheus", f"/api/v1/query?query={query}"))["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def service_is_ready(checkout: Checkout) -> bool:
    try:
        return bool(checkout.get("service", "/health/ready"))
    except OSError:
        return False


@pytest.mark.timeout(600)
def test_stack_lives_changes_heals_and_ends(checkout: Checkout) -> None:  # noqa: PLR0915 - one life, told in order
    # Up, from nothing: the output has the addresses and a real prediction.
    done = checkout.atlas("up", "--stack", "local")
    for part in ("service", "mlflow", "prometheus"):
        assert f"http://127.0.0.1:{checkout.ports[part]}" in done.stdout
    assert "curl -s" in done.stdout
    assert '"predictions"' in done.stdout
    if shutil.which("grafana") is None:
        assert "install Grafana from grafana.com" in done.stdout
    committed = (checkout.path / "Pulumi.local.yaml").read_text()

    # A prediction, and Prometheus has the request.
    assert len(checkout.predict()["predictions"]) == 1
    until(lambda: asked(checkout, "sum(atlas_predictions_total)") >= 2)
    assert json.loads(checkout.get("prometheus", "/api/v1/rules"))["data"]["groups"]
    assert checkout.get("mlflow", "/health") == "OK"

    # Again: nothing changes, not even a process.
    before = checkout.pids()
    assert json.loads(checkout.atlas("up", "--json").stdout)["changes"] == {}
    assert checkout.pids() == before
    assert (checkout.path / "Pulumi.local.yaml").read_text() == committed

    # A changed setting: preview shows just that, and changes nothing; up restarts just that.
    checkout.configure(logLevel="warning")
    preview = checkout.atlas("preview", "--json")
    assert json.loads(preview.stdout)["resources"] == {"service": "update"}
    assert "LOG_LEVEL" in checkout.atlas("preview").stdout
    assert checkout.pids() == before
    assert json.loads(checkout.atlas("up", "--json").stdout)["changes"] == {"service": "update"}
    assert {name for name, pid in checkout.pids().items() if pid != before[name]} == {"service"}

    # A setting of Prometheus alone, and a new bundle.
    before = checkout.pids()
    checkout.configure(scrapeInterval="2s")
    make_bundle(checkout.path / "models/bundle.new", seed=2)
    shutil.rmtree(checkout.path / "models/bundle")
    (checkout.path / "models/bundle.new").rename(checkout.path / "models/bundle")
    version = json.loads((checkout.path / "models/bundle/bundle.json").read_text())["version"]
    changes = json.loads(checkout.atlas("up", "--json").stdout)["changes"]
    assert changes == {"prometheus-config": "update", "prometheus": "update", "service": "update"}
    assert checkout.pids()["mlflow"] == before["mlflow"]
    assert checkout.predict()["model"]["version"] == version
    assert checkout.pids()["service"] == before["service"]  # it has taken the bundle over, without a restart

    # A bundle that can't predict: the service keeps the other, and up says why.
    model = checkout.path / "models/bundle/model.onnx"
    good, manifest = model.read_bytes(), (checkout.path / "models/bundle/bundle.json").read_text()
    model.write_bytes(b"damaged")
    (checkout.path / "models/bundle/bundle.json").write_text(manifest.replace(version, "0" * 64))
    assert "service keeps its old bundle, because it refuses the new one" in checkout.atlas("up", code=1).stderr
    assert checkout.predict()["model"]["version"] == version
    model.write_bytes(good)
    (checkout.path / "models/bundle/bundle.json").write_text(manifest)
    checkout.atlas("up")

    # The service is killed: the supervisor heals it.
    first = checkout.pids()["service"]
    until(lambda: Supervisord(checkout.home).states()["service"]["statename"] == "RUNNING")
    workers = psutil.Process(first).children()
    psutil.Process(first).kill()
    # The killed master's workers answer on its socket until they notice; only then can its successor have it.
    until(lambda: not any(worker.is_running() for worker in workers) and service_is_ready(checkout))
    assert checkout.pids()["service"] not in (0, first)
    assert checkout.predict()["model"]["version"] == version
    assert json.loads(checkout.atlas("status", "--json").stdout)["healthy"] is True

    # It is stopped for good: refresh sees it, up starts it.
    Supervisord(checkout.home).remove("service")
    assert "service" in checkout.atlas("status", code=1).stdout
    assert "1 gone" in checkout.atlas("refresh").stdout
    assert json.loads(checkout.atlas("up", "--json").stdout)["changes"] == {"service": "create"}

    # supervisord itself is killed: its orphans are found, and everything runs again.
    orphans = list(checkout.pids().values())
    psutil.Process(int((checkout.home / "supervisord.pid").read_text())).kill()
    checkout.atlas("up")
    assert checkout.predict()["model"]["version"] == version
    assert not [pid for pid in orphans if psutil.pid_exists(pid)]

    # The end: no process, port or file is left but what isn't the stack's.
    told = checkout.atlas("destroy").stdout
    assert "Removed:" in told
    assert "service" in told
    checkout.assert_nothing_left()
    assert (checkout.path / ".atlas/mlflow/mlflow.db").exists()
    assert (checkout.path / "models/bundle/bundle.json").exists()
    assert list((checkout.path / ".atlas/state/.pulumi/locks").rglob("*.json")) == []
    assert "nothing" in checkout.atlas("destroy").stdout
    assert "is not up" in checkout.atlas("status", code=1).stdout


@pytest.mark.timeout(300)
def test_used_port_is_named_with_its_holder_and_nothing_of_the_service_is_left(checkout: Checkout) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", checkout.ports["service"]))
        other.listen()
        failed = checkout.atlas("up", code=1)
        assert f"service needs port {checkout.ports['service']}, which process {os.getpid()}" in failed.stderr
        assert "service" not in Supervisord(checkout.home).states()
    checkout.atlas("up")
    assert checkout.predict()["predictions"]


@pytest.mark.timeout(300)
def test_default_port_that_another_process_uses_is_replaced_said_and_kept(checkout: Checkout) -> None:
    file = checkout.path / "Pulumi.local.yaml"
    named = f"  atlas:servicePort: '{checkout.ports['service']}'\n"
    assert named in file.read_text()
    file.write_text(file.read_text().replace(named, ""))
    with socket.socket() as other:
        with suppress(OSError):  # another program of this machine has it already
            other.bind(("127.0.0.1", 5000))
            other.listen()
        checked = checkout.atlas("check")
        assert "port 5000 is used by " in checked.stderr
        done = checkout.atlas("up", "--json")
        address = json.loads(done.stdout)["outputs"]["service"]
        assert f"service gets port {address.rpartition(':')[2]} (atlas:servicePort" in done.stderr
        assert json.loads(done.stdout)["example"]["answer"]["predictions"]
        again = json.loads(checkout.atlas("up", "--json").stdout)
    assert again["changes"] == {}
    assert again["outputs"]["service"] == address


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that reaches nothing, and remembers what it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(502)

    do_CONNECT = do_POST = do_GET  # noqa: N815 - http.server's names


@pytest.mark.timeout(300)
def test_proxy_is_never_asked_for_this_machine(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            for spelled in (name, name.upper()):
                monkeypatch.setenv(spelled, f"http://127.0.0.1:{proxy.server_port}")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert '"predictions"' in checkout.atlas("up").stdout
        assert json.loads(checkout.atlas("status", "--json").stdout)["healthy"] is True
        proxy.shutdown()
    assert [address for address in Proxy.asked if "127.0.0.1" in address or "localhost" in address] == []


@pytest.mark.timeout(300)
def test_service_that_dies_at_start_is_told_with_its_reason_and_the_next_up_works(checkout: Checkout) -> None:
    model = checkout.path / "models/bundle/model.onnx"
    good = model.read_bytes()
    model.write_bytes(b"damaged")
    failed = checkout.atlas("up", code=1)
    assert "service stopped at start" in failed.stderr
    assert "service.log" in failed.stderr
    assert "model.onnx" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not listens(checkout.ports["service"])
    model.write_bytes(good)
    checkout.atlas("up")
    assert checkout.predict()["predictions"]


def test_missing_bundle_is_told_before_anything_is_made(checkout: Checkout) -> None:
    shutil.rmtree(checkout.path / "models/bundle")
    failed = checkout.atlas("up", code=1)
    assert "no model bundle at" in failed.stderr
    assert "make repro" in failed.stderr
    assert not checkout.home.exists()
    checkout.atlas("destroy")


def test_wrong_setting_is_one_line_and_changes_nothing(checkout: Checkout) -> None:
    checkout.configure(workers="many")
    failed = checkout.atlas("up", code=1)
    assert len(failed.stderr.splitlines()) == 1
    assert "Pulumi.local.yaml: atlas:workers:" in failed.stderr
    made = [str(path.relative_to(checkout.path / ".atlas")) for path in (checkout.path / ".atlas").rglob("*")]
    assert sorted(made) == ["pulumi", "pulumi/logs"], "nothing but what the fixture makes"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["interrupt", "kill everything"])
def test_interrupted_up_can_be_repeated_and_destroyed(checkout: Checkout, how: str) -> None:
    running = checkout.start("up")
    until(lambda: any("mlflow" in " ".join(process.cmdline()) for process in marked(checkout.home)))
    if how == "interrupt":
        running.send_signal(signal.SIGINT)
        assert checkout.finish(running).returncode == 130
    else:
        # The command, the engine and the provider at once, as a machine's sudden end does.
        for process in [*psutil.Process(running.pid).children(recursive=True), psutil.Process(running.pid)]:
            with suppress(psutil.NoSuchProcess):  # the command may end by itself once its engine is dead
                if process.name() != "supervisord" and process not in marked(checkout.home):
                    process.kill()
        checkout.finish(running)
    again = checkout.atlas("up")
    assert how == "interrupt" or "was killed; its lock is released" in again.stderr
    assert checkout.predict()["predictions"]
    checkout.atlas("destroy")
    checkout.assert_nothing_left()


@pytest.mark.timeout(300)
def test_destroy_works_right_after_a_killed_up(checkout: Checkout) -> None:
    running = checkout.start("up")
    until(lambda: bool(marked(checkout.home)))
    for process in [*psutil.Process(running.pid).children(recursive=True), psutil.Process(running.pid)]:
        # Some come and go by themselves.
        with suppress(psutil.NoSuchProcess):
            if process not in marked(checkout.home):
                process.kill()
    checkout.finish(running)
    checkout.atlas("destroy")
    checkout.assert_nothing_left()


def test_stack_that_another_living_run_holds_is_left_alone(checkout: Checkout) -> None:
    locks = checkout.path / ".atlas/state/.pulumi/locks/organization/atlas/local"
    locks.mkdir(parents=True)
    lock = {"pid": 1, "username": "someone", "hostname": "elsewhere", "timestamp": "2026-01-01T00:00:00Z"}
    (locks / "a.json").write_text(json.dumps(lock))
    failed = checkout.atlas("up", code=1)
    assert "a run on elsewhere (process 1" in failed.stderr
    assert "pulumi cancel" in failed.stderr
    assert Path(locks / "a.json").exists()


def test_model_with_views_gets_a_materializer_and_looks_features_up(checkout: Checkout) -> None:
    shutil.copy(REPOSITORY / "params.yaml", checkout.path / "params.yaml")
    parts = replace(make_parts("binary"), views=flight_views.views(2 * HOUR))
    write_bundle(checkout.path / "models" / "bundle", parts)
    checkout.atlas("up", "--stack", "local")
    until(lambda: checkout.predict()["predictions"][0]["features"]["trouble"] is None)
    until(lambda: asked(checkout, 'up{job="materializer"}') == 1)
    until(lambda: asked(checkout, "atlas_materializer_watermark_timestamp_seconds") > 1.38e9)  # November 2013

    # Killed, it is started again and goes on.
    before = checkout.pids()["materializer"]
    os.kill(before, signal.SIGKILL)
    until(lambda: checkout.pids()["materializer"] not in (0, before))
    until(lambda: "atlas_materializer_lag_seconds" in (answered(checkout) or ""))

    # A model without views needs none.
    make_bundle(checkout.path / "models" / "bundle")
    assert "removing materializer" in checkout.atlas("up", "--stack", "local").stderr
    assert "materializer" not in checkout.pids()
    assert "features" not in checkout.predict()["predictions"][0]
    checkout.atlas("destroy", "--stack", "local", "--yes")
    checkout.assert_nothing_left()


def answered(checkout: Checkout) -> str | None:
    with suppress(OSError):
        return checkout.get("materializer", "/metrics")
    return None
