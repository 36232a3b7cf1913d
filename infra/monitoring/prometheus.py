"""prometheus.yml, rendered: where to scrape, how often, by which rules."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).with_name("rules.yml")


def local_jobs(service: str, prometheus: str) -> list[dict[str, Any]]:
    """Scrape jobs of the local stack; both are host:port."""
    return [
        {"job_name": "service", "static_configs": [{"targets": [service]}]},
        {"job_name": "prometheus", "static_configs": [{"targets": [prometheus]}]},
    ]


def aws_jobs(
    *,
    namespace: str,
    app: str,
    prometheus: str,
    grafana: str,
    folder: str = "/etc/atlas/current",
    token_file: str = "/run/atlas/kubelet-token",  # noqa: S107 - a path
    kubelet_insecure: bool = False,
) -> list[dict[str, Any]]:
    """Scrape jobs of an AWS stack, as Prometheus's own host sees them.

    `prometheus` and `grafana` are the hosts' addresses; `folder` has kubeconfig and cluster-ca.crt. Pods are asked one
    by one, each at its own address: through the load balancer one random pod would answer. `kubelet_insecure` is for
    clusters whose kubelets sign their own certificates, which EKS's don't.
    """
    kubeconfig = f"{folder}/kubeconfig"
    nodes = {"role": "node", "kubeconfig_file": kubeconfig}
    kubelet: dict[str, Any] = {
        "scheme": "https",
        "tls_config": {"insecure_skip_verify": True} if kubelet_insecure else {"ca_file": f"{folder}/cluster-ca.crt"},
        # Prometheus can't run an exec plugin for a scrape: a timer on its host keeps a fresh token here.
        "authorization": {"type": "Bearer", "credentials_file": token_file},
        "kubernetes_sd_configs": [nodes],
        "relabel_configs": [{"source_labels": ["__meta_kubernetes_node_name"], "target_label": "node"}],
    }
    return [
        {
            "job_name": "service",
            "kubernetes_sd_configs": [
                {"role": "pod", "kubeconfig_file": kubeconfig, "namespaces": {"names": [namespace]}}
            ],
            "relabel_configs": [
                {
                    "source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_name"],
                    "regex": app,
                    "action": "keep",
                },
                {
                    "source_labels": ["__meta_kubernetes_pod_container_port_name"],
                    "regex": "http",
                    "action": "keep",
                },
                # A pod that is done, or was never placed, is no target.
                {
                    "source_labels": ["__meta_kubernetes_pod_phase"],
                    "regex": "Pending|Succeeded|Failed",
                    "action": "drop",
                },
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
                {"source_labels": ["__meta_kubernetes_pod_node_name"], "target_label": "node"},
            ],
        },
        {"job_name": "kubelet", **kubelet},
        {
            "job_name": "cadvisor",
            "metrics_path": "/metrics/cadvisor",
            **kubelet,
            # Of cAdvisor's many series just those that rules and dashboards read.
            "metric_relabel_configs": [
                {
                    "source_labels": ["__name__"],
                    "regex": "container_(cpu_usage_seconds_total|cpu_cfs_(throttled_)?periods_total"
                    "|memory_working_set_bytes|spec_memory_limit_bytes|start_time_seconds"
                    "|network_(receive|transmit)_bytes_total)|machine_(cpu_cores|memory_bytes)",
                    "action": "keep",
                }
            ],
        },
        {
            "job_name": "node",
            "static_configs": [
                {"targets": [f"{prometheus}:9100"], "labels": {"host": "prometheus"}},
                {"targets": [f"{grafana}:9100"], "labels": {"host": "grafana"}},
            ],
        },
        {"job_name": "prometheus", "static_configs": [{"targets": ["127.0.0.1:9090"]}]},
        {"job_name": "alertmanager", "static_configs": [{"targets": ["127.0.0.1:9093"]}]},
        {"job_name": "grafana", "static_configs": [{"targets": [f"{grafana}:3000"]}]},
    ]


def prometheus_config(
    scrape_interval: str, rules: str, jobs: Sequence[Mapping[str, Any]], alertmanagers: Sequence[str] = ()
) -> str:
    """The configuration file's text; `rules` is the path of the rules on Prometheus's machine."""
    document: dict[str, Any] = {
        "global": {"scrape_interval": scrape_interval, "evaluation_interval": scrape_interval},
        "rule_files": [rules],
    }
    if alertmanagers:
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]}
    document["scrape_configs"] = list(jobs)
    return yaml.dump(document, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    """Without anchors: what is said twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True
