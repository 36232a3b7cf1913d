"""The files that the local stack gives to Grafana if it is installed; here a stub replaces Grafana."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from infra.monitoring.dashboards import dashboards
from tests.infra.conftest import Checkout
from tests.infra.monitoring.running import query
from tests.infra.support.waiting import eventually

pytestmark = pytest.mark.slow

STAND_IN = f"""#!{sys.executable}
import http.server, os
assert os.path.isdir(os.environ["GF_PATHS_PROVISIONING"] + "/dashboards"), "started before its files were there"
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Answer).serve_forever()
"""


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
