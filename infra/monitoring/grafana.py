"""Renders Grafana's provisioning: its data source and its dashboards."""

import json
from typing import Any

from infra.monitoring.dashboards import SOURCE


def provisioning(*, prometheus_url: str, dashboards: str) -> dict[str, str]:
    """Path below Grafana's provisioning folder -> text; `dashboards` is the folder of the dashboards on its machine.

    Grafana has no alerts: only Prometheus and Alertmanager decide who is notified.
    """
    source = {
        "name": "Prometheus",
        "type": SOURCE.type_val,
        "uid": SOURCE.uid,
        "access": "proxy",
        "url": prometheus_url,
        "isDefault": True,
        "editable": False,
        "jsonData": {"httpMethod": "POST"},
    }
    provider = {
        "name": "atlas",
        "type": "file",
        "folder": "Atlas",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "updateIntervalSeconds": 30,
        "options": {"path": dashboards},
    }
    return {
        "datasources/prometheus.yml": _text({"apiVersion": 1, "datasources": [source]}),
        "dashboards/atlas.yml": _text({"apiVersion": 1, "providers": [provider]}),
    }


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"  # JSON is YAML
