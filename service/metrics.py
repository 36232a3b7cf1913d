"""The metrics for Prometheus: requests by route, predictions by outcome, unusual inputs."""

import os
from collections import Counter as Tally
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import flask
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_flask_exporter import PrometheusMetrics
from prometheus_flask_exporter.multiprocess import GunicornPrometheusMetrics

from service.predictor import Answers, InvalidRowsError, Predictor

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
"""Methods that may be labels: callers can invent any number of others."""
REFUSALS = (
    "overloaded", "too_slow", "malformed",
    "no_key", "unknown_key", "expired_key", "key_in_address", "rate_limit", "network",
)  # fmt: skip
"""Why the service refuses a request before the application sees it."""


class WorkersCollector(MultiProcessCollector):
    """The metrics of all workers, from their files; a file that a worker has just created is still empty.

    prometheus_client fails on an empty file, and a worker that is killed at that moment would leave it for ever.
    """

    def collect(self) -> Iterable[Metric]:
        """The sum over the files."""
        files = [str(file) for file in Path(self._path).glob("*.db") if _filled(file)]
        return cast(Iterable[Metric], self.merge(files, accumulate=True))  # type: ignore[no-untyped-call]


def _filled(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # of a worker that has just ended
        return False


@lru_cache(maxsize=4096)
def _child(metric: Any, *labels: object) -> Any:
    """A metric's counter for these labels, found without the library's checks of each label."""
    return metric.labels(*labels)


class ModelMetrics:
    """Counters of one application; correct over several workers when PROMETHEUS_MULTIPROC_DIR is set."""

    def __init__(self, app: flask.Flask) -> None:
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            self._exporter = GunicornPrometheusMetrics(app, group_by="url_rule")
        else:
            self._exporter = PrometheusMetrics(app, path=None, group_by="url_rule", registry=CollectorRegistry())
        registry = self._exporter.registry
        # The exporter keeps its metrics to itself, and the registry has no other way to find them.
        self._durations = registry._names_to_collectors["flask_http_request_duration_seconds"]
        self._requests = registry._names_to_collectors["flask_http_request_total"]
        self._predictions = Counter(
            "atlas_predictions", "Rows predicted", ["model_version", "outcome"], registry=registry
        )
        self._rejected = Counter("atlas_rows_rejected", "Rows refused", ["reason"], registry=registry)
        self._odd = {
            "out_of_range": Counter(
                "atlas_input_out_of_range", "Values outside the training range", ["feature"], registry=registry
            ),
            "unknown_category": Counter(
                "atlas_input_unknown_category", "Categories not seen in training", ["feature"], registry=registry
            ),
        }
        self._missing = Counter("atlas_input_missing", "Rows without a value", ["feature"], registry=registry)
        self._origins = Counter(
            "atlas_features",
            "Values of features, by their origin: sent by the caller, looked up in the feature store, or missing",
            ["origin"],
            registry=registry,
        )
        self._troubled = Counter(
            "atlas_feature_lookups_failed", "Rows for which the feature store failed", ["reason"], registry=registry
        )
        self._lag = Gauge(
            "atlas_feature_store_lag_seconds",
            "Time from what the materialiser wrote last to the present",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._turned_away = Counter(
            "atlas_requests_refused",
            "Requests that the server refused before the application saw them",
            ["reason"],
            registry=registry,
        )
        for reason in REFUSALS:
            self._turned_away.labels(reason)
        self._by_key = Counter(
            "atlas_api_key_requests",
            "Requests with a known API key: admitted, or refused because it has expired or its limit is used up",
            ["key", "outcome"],
            registry=registry,
        )
        self._keys_broken = Gauge(
            "atlas_api_keys_file_broken",
            "1 while the file of the API keys can't be used and the old keys stay in force",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._info = Gauge(
            "atlas_model_info",
            "The model that is served",
            ["version", "name"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._trained = Gauge(
            "atlas_model_trained_timestamp_seconds",
            "The latest time in the training rows",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def requested(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered without Flask, as the exporter's hooks would."""
        _child(self._durations, method, route, status).observe(seconds)
        _child(self._requests, method, status).inc()

    def exposition(self, accept: str | None) -> tuple[str, str]:
        """The metrics of all workers as text, and the content type.

        The exporter's own route isn't used, because its `name[]` filter and empty files fail with several workers.
        """
        registry = self._exporter.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            WorkersCollector(registry)  # type: ignore[no-untyped-call]
        encode, content_type = choose_encoder(accept or "")
        return encode(registry).decode(), content_type

    def loaded(self, predictor: Predictor, trained_through: float | None) -> None:
        """Record the loaded model; `trained_through` in seconds since 1970, or None if its data has no time."""
        self._info.labels(predictor.bundle.version, predictor.bundle.name).set(1)
        if trained_through is not None:
            self._trained.set(trained_through)

    def answered(self, predictor: Predictor, answers: Answers) -> None:
        """Count predicted rows by outcome, their missing values and their warnings."""
        labels = Tally(answers.winners)
        outcomes = {answers.classes[winner]: rows for winner, rows in labels.items()} or {"number": len(answers)}
        for outcome, rows in outcomes.items():
            _child(self._predictions, predictor.bundle.version, outcome).inc(rows)
        for feature, rows in answers.missing.items():
            _child(self._missing, feature).inc(rows)
        for warnings in answers.warnings.values():
            for warning in warnings:
                # Not for unknown fields: callers choose their names, and the number of labels must be bounded.
                if warning.code in self._odd:
                    self._odd[warning.code].labels(warning.field).inc()

        for found in answers.found or ():
            sent, looked_up = len(found.sent), len(found.values)
            _child(self._origins, "sent").inc(sent)
            _child(self._origins, "looked_up").inc(looked_up)
            _child(self._origins, "missing").inc(len(predictor.names) - sent - looked_up)
            if found.trouble is not None:
                _child(self._troubled, found.trouble).inc()

    def lags(self, seconds: float) -> None:
        """Record how far the feature store's materialiser lags behind."""
        self._lag.set(seconds)

    def refused(self, error: InvalidRowsError) -> None:
        """Count refused rows by reason; a row with two reasons is counted for both."""
        for reason, rows in error.reasons.items():
            self._rejected.labels(reason).inc(rows)

    def turned_away(self, reason: str) -> None:
        """Count a request that was refused before the application saw it, for one of REFUSALS."""
        _child(self._turned_away, reason).inc()

    def key_used(self, name: str, outcome: str) -> None:
        """Count a request with a known API key."""
        _child(self._by_key, name, outcome).inc()

    def keys_broken(self, broken: bool) -> None:
        """Record whether the file of the API keys can't be used."""
        self._keys_broken.set(int(broken))
