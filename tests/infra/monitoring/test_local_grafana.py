"""Prometheus and Grafana are put in place for the local stack, with their files; here a stub replaces Grafana."""

import hashlib
import http.server
import json
import os
import shutil
import sys
import tarfile
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from infra.hosts.versions import GRAFANA, PROMETHEUS, release_for
from infra.local.releases import this_platform
from infra.monitoring.dashboards import dashboards
from infra.tools import cache_folder
from tests.infra.conftest import Checkout, marked
from tests.infra.monitoring.running import query
from tests.infra.support.waiting import eventually

pytestmark = pytest.mark.slow

STAND_IN = f"""#!{sys.executable}
import http.server, os, sys
if sys.argv[1:] == ["--version"]:
    sys.exit(print("a stub"))
assert os.path.isdir(os.environ["GF_PATHS_PROVISIONING"] + "/dashboards"), "started before its files were there"
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Answer).serve_forever()
"""


@pytest.mark.timeout(600)
def test_up_on_a_bare_machine_puts_prometheus_and_grafana_in_place(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a mirror, whose archives hold this machine's Prometheus and a stub of Grafana."""
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("prometheus is not on PATH: `apt-get install prometheus`")
    platform = this_platform()
    pins = checkout.path / "infra/hosts/versions.py"
    for release, program in ((PROMETHEUS, "prometheus"), (GRAFANA, "bin/grafana")):
        wanted = release_for(release, platform)
        file = tmp_path / "mirror" / wanted.url("").lstrip("/")
        binary = tmp_path / "made" / f"{release.name}-{release.version}" / program
        binary.parent.mkdir(parents=True)
        if program == "prometheus":
            shutil.copy(prometheus, binary)
        else:
            binary.write_text(STAND_IN)
            binary.chmod(0o755)
        file.parent.mkdir(parents=True)
        with tarfile.open(file, "w:gz", compresslevel=1) as tar:
            top = tmp_path / "made" / f"{release.name}-{release.version}"
            tar.add(top, top.name)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        pins.write_text(pins.read_text().replace(str(wanted.sha256), digest))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "mirror"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as mirror:
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
        checkout.configure(downloadMirror=f"http://127.0.0.1:{mirror.server_port}")
        bare = replace(checkout, offline=False)
        checked = bare.atlas("check")
        assert f"prometheus {PROMETHEUS.version}: downloading" in checked.stderr
        assert f"grafana {GRAFANA.version}: downloading" in checked.stderr
        mirror.shutdown()
    # The rest of the set-up may take minutes: what was put in place is used without another question.
    done = json.loads(bare.atlas("up", "--json").stdout)
    assert done["outputs"]["prometheus"] == f"http://127.0.0.1:{checkout.ports['prometheus']}"
    assert done["outputs"]["grafana"] == f"http://127.0.0.1:{checkout.ports['grafana']}"
    running = {Path(process.exe()).name: process.exe() for process in marked(checkout.home)}
    assert running["prometheus"] == str(cache_folder() / "releases" / f"prometheus-{PROMETHEUS.version}" / "prometheus")
    commands = [" ".join(process.cmdline()) for process in marked(checkout.home)]
    home = cache_folder() / "releases" / f"grafana-{GRAFANA.version}"
    assert any(f"{home}/bin/grafana server --homepath {home}" in command for command in commands)
    assert json.loads(bare.atlas("status", "--json").stdout)["healthy"] is True
    assert json.loads(bare.atlas("preview", "--json").stdout)["resources"] == {}


@pytest.mark.timeout(600)
def test_grafana_has_its_data_source_and_dashboards(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not on PATH: `apt-get install prometheus`")
    (tmp_path / "bin").mkdir()
    binary = tmp_path / "bin" / "grafana"
    binary.write_text(STAND_IN)
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}{os.environ['PATH']}")
    checkout.atlas("up", "--stack", "local")
    home = checkout.home / "grafana"

    (source,) = yaml.safe_load((home / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((home / "provisioning/dashboards/atlas.yml").read_text())["providers"]
    folder = Path(provider["options"]["path"])
    assert {file.name: file.read_text() for file in folder.iterdir()} == dashboards()
    assert source["url"] == f"http://127.0.0.1:{checkout.ports['prometheus']}"
    board = json.loads((folder / "service.json").read_text())
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
    first = board["panels"][0]["targets"][0]["expr"]
    eventually(lambda: query(checkout.ports["prometheus"], first), first)

    # A dashboard that somebody changed is restored, without a restart.
    before = checkout.pids()["grafana"]
    shutil.copy(folder / "model.json", tmp_path)
    (folder / "model.json").write_text("{}")
    checkout.atlas("up", "--stack", "local")
    assert (folder / "model.json").read_text() == (tmp_path / "model.json").read_text()
    assert checkout.pids()["grafana"] == before

    checkout.atlas("destroy", "--stack", "local")
    checkout.assert_nothing_left()
