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


def prometheus_config(scrape_interval: str, rules: str, jobs: Sequence[Mapping[str, Any]]) -> str:
    """The configuration file's text; `rules` is the path of the rules on Prometheus's machine."""
    document = {
        "global": {"scrape_interval": scrape_interval, "evaluation_interval": scrape_interval},
        "rule_files": [rules],
        "scrape_configs": list(jobs),
    }
    return yaml.safe_dump(document, sort_keys=False)
