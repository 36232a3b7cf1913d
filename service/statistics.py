"""The service's metrics in the form of Triton's statistics extension."""

import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

PREDICTING = re.compile(r"/predict|/invocations|/v2/.*infer|/v1/.*:predict")
"""Routes that predict; the recording rules of infra/monitoring/rules.yml have the same."""


def model_statistics(exposition: str) -> dict[str, Any]:
    """Rows, requests and their total times, in nanoseconds, from the text that /metrics answers."""
    rows = 0
    totals = {(outcome, kind): 0.0 for outcome in ("success", "fail") for kind in ("count", "sum")}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == "atlas_predictions_total":
                rows += int(sample.value)
            prefix, _, kind = sample.name.rpartition("_")
            if prefix == "flask_http_request_duration_seconds" and kind in ("count", "sum"):
                outcome = "success" if sample.labels["status"] == "200" else "fail"
                if PREDICTING.fullmatch(sample.labels["url_rule"]):
                    totals[outcome, kind] += sample.value
    return {
        "inference_count": rows,
        "execution_count": int(totals["success", "count"]),
        "inference_stats": {
            outcome: {"count": int(totals[outcome, "count"]), "ns": int(totals[outcome, "sum"] * 1e9)}
            for outcome in ("success", "fail")
        },
        "batch_stats": [],
    }
