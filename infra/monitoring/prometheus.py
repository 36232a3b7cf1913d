"""Renders prometheus.yml: scrape jobs, intervals, rules, retention."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from infra.names import (
    ALERTMANAGER_PORT,
    APP_LABEL,
    GRAFANA_PORT,
    HOST_FILES,
    HTTP,
    METRICS,
    NODE_EXPORTER_PORT,
    PROMETHEUS_PORT,
)
from infra.names import materializer as materializer_name

RULES = Path(__file__).with_name("rules.yml")


def local_jobs(service: str, prometheus: str, materializer: str | None = None) -> list[dict[str, Any]]:
    """Scrape jobs of the local stack; all are host:port."""
    targets = {"service": service, "prometheus": prometheus, "materializer": materializer}
    return [
        {"job_name": name, "static_configs": [{"targets": [target]}]}
        for name, target in targets.items()
        if target is not None
    ]


def aws_jobs(
    *,
    namespace: str,
    app: str,
    prometheus: str,
    grafana: str,
    materializer: bool = True,
    folder: str = HOST_FILES,
    token_file: str = "/run/atlas/kubelet-token",  # noqa: S107 - a path
) -> list[dict[str, Any]]:
    """Scrape jobs of an AWS stack, as Prometheus's own host sees them.

    `prometheus` and `grafana` are the hosts' addresses; `materializer`: whether the stack has one; `folder` contains
    kubeconfig and cluster-ca.crt. Each pod is scraped at its own address: through the load balancer, a random pod would
    answer.
    """
    kubeconfig = f"{folder}/kubeconfig"

    def kubelet(name: str, path: str, metrics: str, *more: Mapping[str, Any]) -> dict[str, Any]:
        """A job that scrapes `path` of every node's kubelet and keeps only `metrics`, a pattern, of thousands."""
        return {
            "job_name": name,
            "metrics_path": path,
            "scheme": "https",
            "tls_config": {"ca_file": f"{folder}/cluster-ca.crt"},
            # Prometheus can't run an exec plugin for a scrape, so a timer on its host renews the token in this file.
            "authorization": {"type": "Bearer", "credentials_file": token_file},
            "kubernetes_sd_configs": [{"role": "node", "kubeconfig_file": kubeconfig}],
            "relabel_configs": [_copied("__meta_kubernetes_node_name", "node")],
            "metric_relabel_configs": [_kept(metrics, "__name__"), *more],
        }

    def pods(name: str, label: str, port: str) -> dict[str, Any]:
        """A job that scrapes the named port of each pod with this label."""
        return {
            "job_name": name,
            "kubernetes_sd_configs": [
                {"role": "pod", "kubeconfig_file": kubeconfig, "namespaces": {"names": [namespace]}}
            ],
            "relabel_configs": [
                # In a label's name Prometheus writes _ for whatever is no letter or digit.
                _kept(label, "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", APP_LABEL)),
                _kept(port, "__meta_kubernetes_pod_container_port_name"),
                # Pods that have ended, or that aren't scheduled yet, are not scraped.
                _kept("Running", "__meta_kubernetes_pod_phase"),
                _copied("__meta_kubernetes_namespace", "namespace"),
                _copied("__meta_kubernetes_pod_name", "pod"),
                _copied("__meta_kubernetes_pod_node_name", "node"),
            ],
        }

    return [
        pods("service", app, HTTP),
        *([pods("materializer", materializer_name(app), METRICS)] if materializer else []),
        kubelet("kubelet", "/metrics", "kubelet_running_pods"),
        # The resources that containers and nodes use; Kubernetes keeps the names of these metrics stable.
        kubelet(
            "resource",
            "/metrics/resource",
            "(container|node)_(cpu_usage_seconds_total|memory_working_set_bytes|start_time_seconds)",
            _kept(f"{namespace}|", "namespace"),
        ),
        kubelet(
            "cadvisor",
            "/metrics/cadvisor",
            "container_(cpu_cfs_(throttled_)?periods_total|spec_memory_limit_bytes|fs_(usage|limit)_bytes)"
            "|machine_(cpu_cores|memory_bytes)",
            # The totals of the app's pods, and of the machine.
            _kept(f"{namespace};;;.*|;;;/?", "namespace", "container", "image", "id"),
        ),
        {
            "job_name": "node",
            "static_configs": [
                {"targets": [f"{prometheus}:{NODE_EXPORTER_PORT}"], "labels": {"host": "prometheus"}},
                {"targets": [f"{grafana}:{NODE_EXPORTER_PORT}"], "labels": {"host": "grafana"}},
            ],
        },
        {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{PROMETHEUS_PORT}"]}]},
        {"job_name": "alertmanager", "static_configs": [{"targets": [f"127.0.0.1:{ALERTMANAGER_PORT}"]}]},
        {"job_name": "grafana", "static_configs": [{"targets": [f"{grafana}:{GRAFANA_PORT}"]}]},
    ]


def _kept(pattern: str, *labels: str) -> dict[str, Any]:
    return {"source_labels": list(labels), "regex": pattern, "action": "keep"}


def _copied(source: str, target: str) -> dict[str, Any]:
    return {"source_labels": [source], "target_label": target}


def prometheus_config(
    scrape_interval: str,
    rules: str,
    jobs: Sequence[Mapping[str, Any]],
    alertmanagers: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    retention: str | None = None,
) -> str:
    """The configuration file's text; `rules` is the path of the rules on Prometheus's machine.

    `labels`, such as the stack's name, are added to every alert for Alertmanager. `retention`: how long samples are
    kept, such as 15d; the oldest samples are deleted earlier if the disk fills. Prometheus 3.11 or newer reads it at
    each reload.
    """
    document: dict[str, Any] = {
        "global": {"scrape_interval": scrape_interval, "evaluation_interval": scrape_interval},
        "rule_files": [rules],
    }
    if labels:
        document["global"]["external_labels"] = dict(labels)
    if alertmanagers:
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]}
    document["scrape_configs"] = list(jobs)
    if retention:
        # A fifth of the disk is left for the write-ahead log and for compaction, which writes new blocks before it
        # deletes old blocks.
        document["storage"] = {"tsdb": {"retention": {"time": retention, "percentage": 80}}}
    return yaml.dump(document, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    """Writes repeated values in full, without YAML anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True
