"""Grafana's dashboards, built with its own typed SDK: the service, the model, the machines."""

from collections.abc import Callable

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
ROUTES = 'job="service", url_rule=~"/predict|/invocations|/v2/.*infer"'
WIDE, HALF, SMALL = 24, 12, 6

Query = tuple[str, str]
"""PromQL and the legend."""


def _target(index: int, query: Query) -> prometheus.Dataquery:
    expression, legend = query
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id("ABCDEFGH"[index])


def graph(title: str, description: str, unit: str, *queries: Query, span: int = HALF) -> timeseries.Panel:
    """Lines over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .min(0)
        .height(8)
        .span(span)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    for index, query in enumerate(queries):
        panel = panel.with_target(_target(index, query))
    return panel


def figure(title: str, description: str, unit: str, query: Query, warn: float | None = None) -> stat.Panel:
    """One number as it is now; red from `warn` on."""
    panel = (
        stat.Panel().title(title).description(description).unit(unit).datasource(SOURCE).height(4).span(SMALL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .with_target(_target(0, query))
    )  # fmt: skip
    if warn is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=warn, color="red")]
        panel = panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return panel


def _board(uid: str, title: str, description: str) -> dashboard.Dashboard:
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["atlas"])
        .timezone("browser")
        .refresh("30s")
        .time("now-6h", "now")
        .readonly()
    )


def service() -> dashboard.Dashboard:
    """Rate, errors, duration; the objectives and what is left of them."""
    quantiles = [
        (
            f"histogram_quantile({quantile}, sum by (le)"
            f" (rate(flask_http_request_duration_seconds_bucket{{{ROUTES}}}[5m])))",
            f"p{round(quantile * 100)}",
        )
        for quantile in (0.5, 0.95, 0.99)
    ]
    by_status = f"sum by (status) (rate(flask_http_request_duration_seconds_count{{{ROUTES}}}[5m]))"
    return (
        _board("atlas-service", "Atlas: service", "Is it up, is it fast, does it fail?")
        .with_panel(
            figure("Pods that answer", "Scrape targets of the service that are up", "none",
                   ('sum(up{job="service"})', "up"))
        )
        .with_panel(figure("Predictions a second", "Requests to prediction routes", "reqps",
                           ("service:requests:rate5m", "requests")))
        .with_panel(figure("Server errors, 1 h", "Share of prediction requests with a 5xx answer", "percentunit",
                           ("service:unavailable_ratio:rate1h", "errors"), warn=0.005))
        .with_panel(figure("Slower than 250 ms, 1 h", "Share of prediction requests", "percentunit",
                           ("service:slow_ratio:rate1h", "slow"), warn=0.01))
        .with_panel(graph("Rate", "Prediction requests by status", "reqps", (by_status, "{{status}}")))
        .with_panel(graph("Duration", "Quantiles over prediction requests, 5 minutes", "s", *quantiles))
        .with_panel(
            graph("Error budget burn", "Multiples of the rate that would just use up a month's budget (0.5 %)", "none",
                  *[(f"service:unavailable_ratio:rate{window} / 0.005", window) for window in ("5m", "1h", "6h", "3d")])
        )
        .with_panel(
            graph("Latency budget burn", "Multiples of the rate that would just use up a month's budget (1 %)", "none",
                  *[(f"service:slow_ratio:rate{window} / 0.01", window) for window in ("5m", "1h", "6h", "3d")])
        )
        .with_panel(
            graph("All routes", "Requests by route, pages and probes included", "reqps",
                  ('sum by (url_rule) (rate(flask_http_request_duration_seconds_count{job="service"}[5m]))',
                   "{{url_rule}}"), span=WIDE)
        )
    )  # fmt: skip


def model() -> dashboard.Dashboard:
    """What the model says, and whether it still knows what it is asked about."""
    rows = "sum(rate(atlas_predictions_total[1h]))"

    def share(metric: str) -> Query:
        return (f"sum by (feature) (rate({metric}[1h])) / on () group_left () ({rows} > 0)", "{{feature}}")

    return (
        _board("atlas-model", "Atlas: model", "What does it answer, and is it asked what it was trained for?")
        .with_panel(figure("Version", "Models that answer; more than one while a deploy rolls", "none",
                           ("count(count by (version) (atlas_model_info))", "versions")))
        .with_panel(figure("Newest training row", "Its age", "s",
                           ("time() - max(atlas_model_trained_timestamp_seconds > 0)", "age"), warn=90 * 86400))
        .with_panel(figure("Rows, 24 h", "Rows answered", "short",
                           ("sum(increase(atlas_predictions_total[24h]))", "rows")))
        .with_panel(figure("Rows refused, 24 h", "Rows with an error of the caller", "short",
                           ("sum(increase(atlas_rows_rejected_total[24h])) or vector(0)", "refused")))
        .with_panel(graph("Answers", "Rows by outcome", "short", ("model:predictions:rate5m", "{{outcome}}")))
        .with_panel(graph("Mix of answers", "Share of each outcome in an hour: a shift is drift, here or in the world",
                          "percentunit",
                          ("sum by (outcome) (rate(atlas_predictions_total[1h]))"
                           " / on () group_left () (sum(rate(atlas_predictions_total[1h])) > 0)", "{{outcome}}")))
        .with_panel(graph("Outside training's range", "Share of rows, by feature", "percentunit",
                          ("model:out_of_range_ratio:rate1h", "{{feature}}")))
        .with_panel(graph("Unknown categories", "Share of rows, by feature", "percentunit",
                          share("atlas_input_unknown_category_total")))
        .with_panel(graph("Missing values", "Share of rows, by feature", "percentunit",
                          share("atlas_input_missing_total")))
        .with_panel(graph("Rows refused", "By reason", "short",
                          ("sum by (reason) (rate(atlas_rows_rejected_total[5m]))", "{{reason}}")))
    )  # fmt: skip


def infrastructure() -> dashboard.Dashboard:
    """Pods, nodes, the two hosts, and monitoring itself."""
    return (
        _board("atlas-infrastructure", "Atlas: infrastructure", "Pods, nodes and the two monitoring hosts")
        .with_panel(figure("Targets down", "Scrape targets that don't answer", "none",
                           ("count(up == 0) or vector(0)", "down"), warn=1))
        .with_panel(figure("Alerts", "Firing now", "none",
                           ('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"), warn=1))
        .with_panel(figure("Restarts, 1 h", "Of the service's pods", "none",
                           ("sum(pod:restarts:1h) or vector(0)", "restarts"), warn=1))
        .with_panel(figure("Samples a second", "What Prometheus takes in", "short",
                           ("sum(rate(prometheus_tsdb_head_samples_appended_total[5m]))", "samples")))
        .with_panel(graph("Pods: CPU", "Cores used by the service's container", "none",
                          ("pod:cpu_cores:rate5m", "{{pod}}")))
        .with_panel(graph("Pods: memory", "Share of the limit", "percentunit", ("pod:memory:ratio", "{{pod}}")))
        .with_panel(graph("Pods: CPU held back", "Share of periods in which the limit was hit", "percentunit",
                          ("pod:cpu_throttled:ratio5m", "{{pod}}")))
        .with_panel(graph("Nodes", "Share of CPU and memory in use", "percentunit",
                          ("node:cpu:ratio5m", "{{node}} CPU"), ("node:memory:ratio", "{{node}} memory")))
        .with_panel(graph("Hosts", "Share of CPU and memory in use", "percentunit",
                          ("host:cpu:ratio5m", "{{host}} CPU"), ("host:memory:ratio", "{{host}} memory")))
        .with_panel(graph("Hosts: disks", "Share in use", "percentunit",
                          ("host:disk:ratio", "{{host}} {{mountpoint}}")))
        .with_panel(graph("Kubelet", "Pods that run on a node", "none",
                          ("sum by (node) (kubelet_running_pods)", "{{node}}")))
        .with_panel(graph("Scrapes", "How long each target takes to answer", "s",
                          ("scrape_duration_seconds", "{{job}} {{instance}}")))
    )  # fmt: skip


BOARDS: dict[str, Callable[[], dashboard.Dashboard]] = {
    "service.json": service,
    "model.json": model,
    "infrastructure.json": infrastructure,
}


def dashboards() -> dict[str, str]:
    """File name -> the dashboard as JSON."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {name: encoder.encode(board().build()) + "\n" for name, board in BOARDS.items()}
