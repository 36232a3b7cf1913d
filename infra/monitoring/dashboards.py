"""Grafana's dashboards, built with its typed SDK: service, model, infrastructure."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, BigValueTextMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
ROUTES = 'job="service", url_rule=~"/predict|/invocations|/v1/.*:predict|/v2/.*infer"'
BURN_WINDOWS = ("5m", "1h", "6h", "3d")
WIDE, HALF, THIRD, QUARTER = 24, 12, 8, 6

Query = tuple[str, str]
"""PromQL and the legend."""
Panel = timeseries.Panel | stat.Panel | table.Panel


def graph(title: str, description: str, unit: str, *queries: Query, span: int = HALF) -> timeseries.Panel:
    """Lines over time."""
    legend = (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel = timeseries.Panel().title(title).description(description).unit(unit).datasource(SOURCE)
    panel = panel.min(0).fill_opacity(8).height(8).span(span).legend(legend)
    for reference, (expression, label) in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(
            prometheus.Dataquery().expr(expression).legend_format(label).ref_id(reference).range()
        )
    return panel


def figure(
    title: str,
    description: str,
    unit: str,
    query: str,
    *,
    red_from: float | None = None,
    red_below: float | None = None,
) -> stat.Panel:
    """A current value; red from `red_from` or below `red_below`."""
    return _stat(title, description, unit, query, "").thresholds(_colours(red_from, red_below))


def name(title: str, description: str, query: str, label: str) -> stat.Panel:
    """The current value of a label."""
    return _stat(title, description, "none", query, f"{{{{{label}}}}}").text_mode(BigValueTextMode.NAME)


def listing(title: str, description: str, query: str, hidden: Sequence[str]) -> table.Panel:
    """A row per series, a column per label; the columns `hidden` are left out."""
    target = prometheus.Dataquery().expr(query).format(PromQueryFormat.TABLE).ref_id("A").instant()
    without = DataTransformerConfig(id_val="organize", options={"excludeByName": dict.fromkeys(hidden, True)})
    panel = table.Panel().title(title).description(description).unit("none").datasource(SOURCE)
    return panel.height(8).span(WIDE).show_header(True).with_target(target).with_transformation(without)


def _stat(title: str, description: str, unit: str, query: str, label: str) -> stat.Panel:
    target = prometheus.Dataquery().expr(query).legend_format(label).ref_id("A").instant()
    panel = stat.Panel().title(title).description(description).unit(unit).datasource(SOURCE)
    panel = panel.height(4).span(QUARTER).graph_mode(BigValueGraphMode.NONE)
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)).with_target(target)


def _colours(red_from: float | None, red_below: float | None) -> dashboard.ThresholdsConfig:
    """Thresholds for the colours; without explicit thresholds, Grafana's default is red from 80."""
    steps = [Threshold(value=None, color="green" if red_below is None else "red")]
    if red_below is not None:
        steps.append(Threshold(value=red_below, color="green"))
    if red_from is not None:
        steps.append(Threshold(value=red_from, color="red"))
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _board(uid: str, title: str, description: str, *panels: Panel) -> dashboard.Dashboard:
    board = dashboard.Dashboard(title).uid(uid).description(description).tags(["atlas"]).timezone("browser")
    board = board.refresh("30s").time("now-6h", "now").readonly().tooltip(DashboardCursorSync.CROSSHAIR)
    # Links between the dashboards keep the selected time range.
    links = (
        dashboard.DashboardLink("Atlas")
        .tags(["atlas"])
        .type(DashboardLinkType.DASHBOARDS)
        .as_dropdown(False)
        .keep_time(True)
    )
    board = board.link(links)
    for number, panel in enumerate(panels, start=1):
        board = board.with_panel(panel.id(number))
    return board


def service() -> dashboard.Dashboard:
    """Rate, errors, duration; the burn rates of the objectives."""
    by_status = f"sum by (status) (rate(flask_http_request_duration_seconds_count{{{ROUTES}}}[5m]))"
    all_routes = 'sum by (url_rule) (rate(flask_http_request_duration_seconds_count{job="service"}[5m]))'
    by_pod = 'sum by (instance) (rate(flask_http_request_duration_seconds_count{job="service"}[5m]))'
    return _board(
        "atlas-service",
        "Atlas: service",
        "Availability, latency and errors of the service",
        figure("Pods that answer", "Scrape targets that are up", "none", 'sum(up{job="service"})', red_below=1),
        figure("Predictions", "Requests a second, 5 minutes", "reqps", "service:requests:rate5m"),
        figure(
            "Server errors, 1 h",
            "Share of prediction requests with a 5xx answer; the objective is below 0.5 %",
            "percentunit",
            "service:unavailable_ratio:rate1h",
            red_from=0.005,
        ),
        figure(
            "Slower than 250 ms, 1 h",
            "Share of prediction requests; the objective is below 1 %",
            "percentunit",
            "service:slow_ratio:rate1h",
            red_from=0.01,
        ),
        graph("Rate", "Prediction requests by status", "reqps", (by_status, "{{status}}")),
        graph("Duration", "Quantiles over prediction requests, 5 minutes", "s", *_quantiles(ROUTES)),
        graph(
            "Availability: burn rate",
            "A burn rate of 1 uses up the month's error budget (0.5 % of requests) in a month; 14.4 over an hour pages",
            "none",
            *[(f"service:unavailable_ratio:rate{window} / 0.005", window) for window in BURN_WINDOWS],
        ),
        graph(
            "Latency: burn rate",
            "A burn rate of 1 uses up the month's budget of slow requests (1 %) in a month; 14.4 over an hour pages",
            "none",
            *[(f"service:slow_ratio:rate{window} / 0.01", window) for window in BURN_WINDOWS],
        ),
        graph("Routes", "Requests by route, pages and probes included", "reqps", (all_routes, "{{url_rule}}")),
        graph("Pods", "Requests by pod; they should be balanced", "reqps", (by_pod, "{{instance}}")),
        graph(
            "Features: origin",
            "Values a second: sent by the caller, looked up, or missing; only with a feature store",
            "cps",
            ("features:values:rate5m", "{{origin}}"),
            span=THIRD,
        ),
        graph(
            "Features: failures",
            "Share of rows for which the feature store failed, by reason; from 10 % there is an alert",
            "percentunit",
            ("features:lookups_failed_ratio:rate5m", "{{reason}}"),
            span=THIRD,
        ),
        graph(
            "Features: lag",
            "Time since the materialiser wrote last, as each pod sees it; in a replay in simulated time",
            "s",
            ('atlas_feature_store_lag_seconds{job="service"}', "{{instance}}"),
            span=THIRD,
        ),
    )


def _quantiles(selector: str) -> list[Query]:
    rates = f"sum by (le) (rate(flask_http_request_duration_seconds_bucket{{{selector}}}[5m]))"
    return [(f"histogram_quantile({part}, {rates})", f"p{round(part * 100)}") for part in (0.5, 0.95, 0.99)]


def model() -> dashboard.Dashboard:
    """The model's predictions, and how much the inputs differ from the training data."""
    return _board(
        "atlas-model",
        "Atlas: model",
        "Predictions of the model, and whether the inputs resemble the training data",
        name("Model", "Its name", "max by (name) (atlas_model_info)", "name"),
        name(
            "Version",
            "The bundle's version; more than one during a rollout",
            "max by (version) (atlas_model_info)",
            "version",
        ),
        figure("Newest training row", "Its age", "s", "model:age_seconds", red_from=90 * 86400),
        figure("Rows, 24 h", "Rows predicted", "short", "sum(increase(atlas_predictions_total[24h]))"),
        graph("Predictions", "Rows a second by outcome", "cps", ("model:predictions:rate5m", "{{outcome}}")),
        graph(
            "Mix of predictions",
            "Share of each outcome in an hour; a shift is a sign of drift",
            "percentunit",
            (
                "sum by (outcome) (rate(atlas_predictions_total[1h])) / on () group_left () (model:rows:rate1h > 0)",
                "{{outcome}}",
            ),
        ),
        graph("Duration", "Quantiles over prediction requests, 5 minutes", "s", *_quantiles(ROUTES)),
        graph(
            "Rows refused",
            "Invalid rows a second, by reason",
            "cps",
            ("sum by (reason) (rate(atlas_rows_rejected_total[5m]))", "{{reason}}"),
        ),
        graph(
            "Outside the training range",
            "Share of rows, by feature",
            "percentunit",
            ("model:out_of_range_ratio:rate1h", "{{feature}}"),
            span=THIRD,
        ),
        graph(
            "Unknown categories",
            "Share of rows, by feature",
            "percentunit",
            ("model:unknown_category_ratio:rate1h", "{{feature}}"),
            span=THIRD,
        ),
        graph(
            "Missing values",
            "Share of rows, by feature",
            "percentunit",
            ("model:missing_ratio:rate1h", "{{feature}}"),
            span=THIRD,
        ),
    )


def infrastructure() -> dashboard.Dashboard:
    """Pods, nodes, the two hosts, and monitoring itself."""
    return _board(
        "atlas-infrastructure",
        "Atlas: infrastructure",
        "Pods, nodes and the two monitoring hosts; on a local stack only the first row and Scrapes have data",
        figure("Targets down", "Scrape targets that don't answer", "none", "count(up == 0) or vector(0)", red_from=1),
        figure("Alerts firing", "Now", "none", 'count(ALERTS{alertstate="firing"}) or vector(0)', red_from=1),
        figure("Restarts, 1 h", "Of the service's containers", "none", "sum(pod:restarts:1h) or vector(0)", red_from=1),
        figure(
            "Samples",
            "Samples that Prometheus stores a second",
            "cps",
            "sum(rate(prometheus_tsdb_head_samples_appended_total[5m]))",
        ),
        listing(
            "Alerts",
            "Firing now; each rule's remedy is on Prometheus's page of alerts",
            'ALERTS{alertstate="firing"}',
            hidden=("Time", "Value", "__name__", "alertstate", "objective"),
        ),
        graph("Pods: CPU", "Cores that the service's container uses", "none", ("pod:cpu_cores:rate5m", "{{pod}}")),
        graph("Pods: memory", "Share of the limit", "percentunit", ("pod:memory:ratio", "{{pod}}")),
        graph(
            "Pods: CPU throttled",
            "Share of CPU periods in which the limit was reached",
            "percentunit",
            ("pod:cpu_throttled:ratio5m", "{{pod}}"),
        ),
        graph("Nodes: pods", "Pods that run on a node", "none", ("sum by (node) (kubelet_running_pods)", "{{node}}")),
        graph(
            "Nodes: CPU and memory",
            "Share in use",
            "percentunit",
            ("node:cpu:ratio5m", "{{node}} CPU"),
            ("node:memory:ratio", "{{node}} memory"),
        ),
        graph("Nodes: disks", "Share in use", "percentunit", ("node:disk:ratio", "{{node}} {{device}}")),
        graph(
            "Hosts: CPU and memory",
            "Share in use",
            "percentunit",
            ("host:cpu:ratio5m", "{{host}} CPU"),
            ("host:memory:ratio", "{{host}} memory"),
        ),
        graph("Hosts: disks", "Share in use", "percentunit", ("host:disk:ratio", "{{host}} {{mountpoint}}")),
        graph(
            "Scrapes",
            "How long each target takes to answer",
            "s",
            ("scrape_duration_seconds", "{{job}} {{instance}}"),
            span=WIDE,
        ),
    )


def dashboards() -> dict[str, str]:
    """File name -> the dashboard as JSON."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    boards = {"service.json": service, "model.json": model, "infrastructure.json": infrastructure}
    return {file: encoder.encode(board().build()) + "\n" for file, board in boards.items()}
