"""Names in files that can't import infra/names.py: the image, the service, and what runs on the hosts say the same."""

from pathlib import Path

import pytest

from infra import names
from infra.hosts.boot import FILES
from service.settings import Settings

REPOSITORY = Path(__file__).parents[2]


def test_image_and_service_listen_where_the_cluster_asks() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert Settings().port == names.SERVICE_PORT
    assert f" PORT={names.SERVICE_PORT} " in dockerfile
    assert f"\nEXPOSE {names.SERVICE_PORT}\n" in dockerfile
    assert f"'{names.SERVICE_READY}'" in dockerfile
    assert f'"{names.SERVICE_READY}"' in (REPOSITORY / "service/routes/health.py").read_text()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("prometheus.service", f"--web.listen-address=0.0.0.0:{names.PROMETHEUS_PORT}\n"),
        ("prometheus.service", f"--config.file={names.HOST_FILES}/prometheus.yml "),
        ("alertmanager.service", f"--web.listen-address=127.0.0.1:{names.ALERTMANAGER_PORT} "),
        ("alertmanager.service", f"--config.file={names.HOST_FILES}/alertmanager.yml "),
        ("node_exporter.service", f"--web.listen-address=0.0.0.0:{names.NODE_EXPORTER_PORT} "),
        ("grafana.ini", f"http_port = {names.GRAFANA_PORT}\n"),
        ("grafana.ini", f"provisioning = {names.HOST_FILES}/provisioning\n"),
        ("atlas-config", f" current={names.HOST_FILES} "),
        ("atlas-install", f" {names.HOST_FILES} "),
    ],
)
def test_what_runs_on_a_host_listens_and_reads_where_the_program_says(file: str, said: str) -> None:
    assert said in (FILES / file).read_text()
