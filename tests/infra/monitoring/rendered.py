"""All files that infra/monitoring renders, by the name of their golden file."""

import json
from typing import Any

from infra.monitoring.alertmanager import alertmanager_config
from infra.monitoring.dashboards import dashboards
from infra.monitoring.grafana import provisioning
from infra.monitoring.prometheus import aws_jobs, local_jobs, prometheus_config


def rendered() -> dict[str, str]:
    """File name -> text, for example addresses."""
    local = prometheus_config("15s", "rules.yml", local_jobs("127.0.0.1:5000", "127.0.0.1:9090"))
    topic = "arn:aws:sns:us-east-1:123456789012:atlas-dev-alerts"
    own = provisioning(prometheus_url="http://10.20.0.10:9090", dashboards="/etc/atlas/current/dashboards")
    return {
        "prometheus.local.yml": local,
        "prometheus.aws.yml": prometheus_aws(),
        "alertmanager.yml": alertmanager_config(region="us-east-1", topic_arn=topic),
        **{f"grafana/provisioning/{path}": text for path, text in own.items()},
        **{f"grafana/dashboards/{path}": text for path, text in dashboards().items()},
    }


def prometheus_aws(folder: str = "/etc/atlas/current", token_file: str = "/run/atlas/kubelet-token") -> str:
    jobs = aws_jobs(
        namespace="flask-app",
        app="flask-app",
        prometheus="10.20.0.10",
        grafana="10.20.0.11",
        folder=folder,
        token_file=token_file,
    )
    return prometheus_config("15s", f"{folder}/rules.yml", jobs, ["127.0.0.1:9093"], {"stack": "dev"}, "15d")


def panels() -> list[tuple[str, dict[str, Any]]]:
    """(file name, panel) of every dashboard."""
    return [(file, panel) for file, content in dashboards().items() for panel in json.loads(content)["panels"]]


def queries(*files: str) -> list[str]:
    """The distinct PromQL queries of these dashboards, in order."""
    found = [target["expr"] for file, panel in panels() if not files or file in files for target in panel["targets"]]
    return list(dict.fromkeys(found))


def of_a_cluster(expression: str) -> bool:
    """Whether the query has no data without pods and nodes."""
    named = any(name in expression for name in ("pod:", "node:", "kubelet_running_pods"))
    return named and "or vector(0)" not in expression
