"""The questions that an operator asks in, Grafana's dashboard out: `.venv/bin/python k8s/dashboard.py`.

Writes components/monitoring/dashboard.json by Grafana's own builders, which know what its panels take. Its queries are
limner's metrics and the recording rules beside it; `k8s/check.py` names each that is neither.
"""

from collections.abc import Iterable
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    DataSourceRef,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PATH = Path(__file__).with_name("components") / "monitoring" / "dashboard.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HERE = 'namespace=~"$namespace"'
MODEL = f'{HERE}, model=~"$model@$version"'
IMAGES = 'route=~"/generate|/interpolate|/v1/images/generations|/v2/models/.+/infer"'  # as in rules.yaml
HEIGHT = 8

Query = tuple[str, str]  # an expression, and what its series are called
Panel = stat.Panel | timeseries.Panel | heatmap.Panel | table.Panel


def rate(metric: str, by: str, where: str = MODEL) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def quantiles(metric: str, by: str, where: str = MODEL) -> list[Query]:
    """Median, 95th and 99th percentile of a histogram, a series each and for each `by`."""
    shown = f"{{{{{by}}}}} "
    buckets = rate(f"{metric}_bucket", f"{by}, le", where)
    return [(f"histogram_quantile({share}, {buckets})", f"{shown}p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


def _targets(queries: Iterable[Query]) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + place)).range()
        for place, (expression, legend) in enumerate(queries)
    ]


def number(title: str, description: str, unit: str, query: str, good_below: float | None = None) -> stat.Panel:
    """One figure of now, with how it was behind it; red from `good_below` on."""
    panel = stat.Panel().title(title).description(description).datasource(SOURCE).unit(unit).height(4).span(4)
    panel = (
        panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(BigValueGraphMode.AREA)
        .targets([*_targets([(query, title)])])
    )
    steps = [Threshold(None, "green")] + ([] if good_below is None else [Threshold(good_below, "red")])
    return panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))


def lines(
    title: str, description: str, unit: str, queries: list[Query], span: int = 8, stacked: bool = False
) -> timeseries.Panel:
    panel = timeseries.Panel().title(title).description(description).datasource(SOURCE).unit(unit).min(0)
    panel = (
        panel.height(HEIGHT).span(span).line_width(1).fill_opacity(30 if stacked else 8).targets([*_targets(queries)])
    )
    panel = panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel = panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    return panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)) if stacked else panel


def sizes(title: str, description: str, unit: str, metric: str) -> heatmap.Panel:
    """How a histogram's values lie, over time."""
    buckets = f"sum by (le) (increase({metric}_bucket{{{MODEL}}}[$__rate_interval]))"
    target = prometheus.Dataquery().expr(buckets).legend_format("{{le}}").format(PromQueryFormat.HEATMAP).range()
    panel = heatmap.Panel().title(title).description(description).datasource(SOURCE).unit(unit)
    panel = panel.height(HEIGHT).span(8).targets([target.ref_id("A")])
    return panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64))


def facts(title: str, description: str, query: str, hidden: tuple[str, ...]) -> table.Panel:
    """The labels of an info metric, a row each."""
    target = prometheus.Dataquery().expr(query).format(PromQueryFormat.TABLE).instant().ref_id("A")
    panel = table.Panel().title(title).description(description).datasource(SOURCE).height(HEIGHT).span(10)
    left_out = dict.fromkeys(hidden, True)
    organised = DataTransformerConfig(id_val="organize", options={"excludeByName": left_out})
    return panel.targets([target]).transformations([organised])


ROWS: dict[str, list[Panel]] = {
    "Now": [
        number(
            "Workers that take work",
            "Processes that are ready. Fewer than there are: some drain.",
            "none",
            f"sum(limner_ready_workers{{{HERE}}})",
        ),
        number("Images", "Made, a second.", "short", f"sum(rate(limner_images_total{{{MODEL}}}[$__rate_interval]))"),
        number(
            "Error budget burn",
            "Requests for images that failed (5xx) within five minutes, of those that may. Red: more than may.",
            "none",
            f"max(namespace:limner_requests_failed:ratio_rate5m{{{HERE}}}) / scalar(limner:failed_objective:ratio)",
            1,
        ),
        number(
            "Latency budget burn",
            "Requests for images that took over half a second, of those that may. Red: more than may.",
            "none",
            f"max(namespace:limner_requests_slow:ratio_rate5m{{{HERE}}}) / scalar(limner:slow_objective:ratio)",
            1,
        ),
        number(
            "Refused requests",
            "Of the requests that asked for room in a queue, refused with 429 within five minutes.",
            "percentunit",
            f"max(namespace_model:limner_rejected:ratio_rate5m{{{MODEL}}})",
            0.01,
        ),
        number(
            "Busiest engine",
            "Seconds busy with batches per second and worker, of the busiest pod. Autoscalers aim at 70 %.",
            "percentunit",
            f"max(namespace_pod:limner_engine_utilization:ratio_rate5m{{{HERE}}})",
            0.75,
        ),
    ],
    "Traffic": [
        lines("Requests by route", "", "reqps", [(rate("limner_requests_total", "route", HERE), "{{route}}")]),
        lines(
            "Requests for images by answer",
            "4xx are the clients' own, but 429: refused because there is no room, or no time. 5xx and 504 are ours.",
            "reqps",
            [(rate("limner_requests_total", "code", f"{HERE}, {IMAGES}"), "{{code}}")],
            stacked=True,
        ),
        lines("Images by model", "", "short", [(rate("limner_images_total", "model"), "{{model}}")], stacked=True),
    ],
    "Latency by stage": [
        lines(
            "From a request's headers to its answer",
            "But of 4xx. Of what is sent while it is made, to the end of the answer.",
            "s",
            quantiles("limner_request_seconds", "route", f"{HERE}, {IMAGES}"),
            span=12,
        ),
        lines(
            "Queue, batch and encoding: the means",
            "The wait of a request for its first batch, a batch in the engine (large requests take several), pixels to"
            " a body or a piece of it.",
            "s",
            [
                (
                    f"sum(rate(limner_{stage}_seconds_sum{{{MODEL}}}[$__rate_interval]))"
                    f" / sum(rate(limner_{stage}_seconds_count{{{MODEL}}}[$__rate_interval]))",
                    stage,
                )
                for stage in ("queue", "compute", "encode")
            ],
            span=12,
        ),
        lines("Queue", "From arrival to the first batch.", "s", quantiles("limner_queue_seconds", "model")),
        lines("Compute", "A batch in the engine.", "s", quantiles("limner_compute_seconds", "model")),
        lines("Encode", "Pixels to a body.", "s", quantiles("limner_encode_seconds", "model")),
    ],
    "Batching": [
        lines(
            "Images in a batch",
            "The mean. It grows by itself with the load.",
            "short",
            [(f"{rate('limner_batch_size_sum', 'model')} / {rate('limner_batch_size_count', 'model')}", "{{model}}")],
            span=6,
        ),
        lines(
            "Padding",
            "The mean share of a batch's rows that nobody asked for.",
            "percentunit",
            [
                (
                    f"{rate('limner_padding_ratio_sum', 'model')} / {rate('limner_padding_ratio_count', 'model')}",
                    "{{model}}",
                )
            ],
            span=5,
        ),
        lines(
            "Batches by reason",
            "full: as large as can be. fitted: as large as needs no padding. drained: all that waited. retry: half of"
            " one that failed.",
            "short",
            [(rate("limner_batches_total", "reason"), "{{reason}}")],
            span=5,
            stacked=True,
        ),
        sizes("Sizes of batches", "How many batches of up to so many images.", "short", "limner_batch_size"),
    ],
    "Saturation and shedding": [
        lines(
            "How busy engines are",
            "Seconds in which a worker made batches, and what belongs to them, per second. 1 is all there is.",
            "percentunit",
            [
                (
                    f"{rate('limner_busy_seconds_total', 'pod')} / sum by (pod) (limner_workers{{{HERE}}})",
                    "{{pod}}",
                )
            ],
        ),
        lines(
            "Images that wait for a batch",
            "Of all workers together.",
            "short",
            [(f"sum by (pod, model) (limner_queued_images{{{MODEL}}})", "{{pod}} {{model}}")],
        ),
        lines(
            "Requests that are being answered",
            "",
            "short",
            [(f"sum by (pod) (limner_in_flight_requests{{{HERE}}})", "{{pod}}")],
        ),
        lines(
            "Refused",
            "queue-full: there was no room. deadline-unreachable: their time would have run out in the queue."
            " not-ready: while a server drained.",
            "reqps",
            [(rate("limner_rejected_total", "reason"), "{{reason}}")],
            stacked=True,
        ),
        lines(
            "Accepted and too late",
            "missed: 504. late: answered after their time, and perhaps nobody was there any more.",
            "reqps",
            [
                (rate("limner_deadline_missed_total", "model"), "{{model}} missed"),
                (rate("limner_late_answers_total", "model"), "{{model}} late"),
            ],
        ),
        lines(
            "Clients that left",
            "Before their images were made.",
            "reqps",
            [(rate("limner_cancelled_total", "model"), "{{model}}")],
        ),
    ],
    "Models and engines": [
        lines(
            "Pods by version of limner",
            "Two at a time: a rollout.",
            "none",
            [(f"count by (version) (limner_build_info{{{HERE}}})", "{{version}}")],
            span=4,
        ),
        facts(
            "What is served",
            "Name and version, the model's digest, and the engine's artifact.",
            f"count by (namespace, model, digest, artifact) (limner_model_info{{{MODEL}}})",
            hidden=("Time",),
        ),
        lines(
            "Batches that failed",
            "engine: the whole batch. non-finite: some of its pictures. The log says why.",
            "short",
            [(rate("limner_failed_batches_total", "model, reason"), "{{model}} {{reason}}")],
            span=5,
        ),
        lines(
            "Seconds to load",
            "From a bundle's file to a warmed-up model.",
            "s",
            [(f"max by (pod, model) (limner_load_seconds{{{MODEL}}})", "{{pod}} {{model}}")],
            span=5,
        ),
    ],
    "Process": [
        lines(
            "CPU",
            "Cores that a pod uses, its dead workers among them; and those that it may use.",
            "short",
            [
                (
                    f'sum by (pod) (rate(process_cpu_seconds_total{{job="limner", {HERE}}}[$__rate_interval]))',
                    "{{pod}}",
                ),
                (f"min by (pod) (limner_cpu_cores{{{HERE}}})", "{{pod}} limit"),
            ],
            span=5,
        ),
        lines(
            "Throttled",
            "Share of the time in which a container had used up its CPU: then all of it waits.",
            "percentunit",
            [(f"sum by (pod) (rate(limner_cpu_throttled_seconds_total{{{HERE}}}[$__rate_interval]))", "{{pod}}")],
            span=4,
        ),
        lines(
            "Memory",
            "Of all processes of a pod, with what they share counted for each; and what may still be taken.",
            "bytes",
            [
                (f'sum by (pod) (process_resident_memory_bytes{{job="limner", {HERE}}})', "{{pod}}"),
                (f"min by (pod) (limner_memory_available_bytes{{{HERE}}})", "{{pod}} left"),
            ],
            span=5,
        ),
        lines(
            "Workers",
            "Processes that serve, and deaths within fifteen minutes.",
            "short",
            [
                (f"sum by (pod) (limner_workers{{{HERE}}})", "{{pod}}"),
                (f"sum by (pod) (increase(limner_worker_restarts_total{{{HERE}}}[15m]))", "{{pod}} died"),
            ],
            span=5,
        ),
        lines(
            "Drains",
            "Seconds since a pod was asked to end, and those that it has for it.",
            "s",
            [
                (f"max by (pod) (limner_draining_seconds{{{HERE}}})", "{{pod}}"),
                (f"max by (pod) (limner_drain_limit_seconds{{{HERE}}})", "{{pod}} limit"),
            ],
            span=5,
        ),
    ],
}


def built() -> str:
    """The dashboard as JSON."""
    whole = (
        dashboard.Dashboard("limner")
        .uid("limner")
        .description(
            "Traffic, latency by stage, batching, saturation, models, processes. docs/operations.md explains it."
        )
        .tags(["limner"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("namespace", "label_values(limner_workers, namespace)"))
        .with_variable(_variable("model", f"label_values(limner_model_info{{{HERE}}}, model)", "/(.*)@/"))
        .with_variable(
            _variable("version", f'label_values(limner_model_info{{{HERE}, model=~"$model@.*"}}, model)', "/@(.*)/")
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("red")
            .expr(f'ALERTS{{alertname=~"Limner.+", alertstate="firing", {HERE}}}')
            .title_format("{{alertname}}")
            .text_format("{{pod}} {{model}}")
        )
    )
    for title, panels in ROWS.items():
        whole = whole.with_row(dashboard.Row(title))
        for panel in panels:
            whole = whole.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=1).encode(whole.build()) + "\n"


def _variable(name: str, query: str, regex: str = "") -> dashboard.QueryVariable:
    """One, several or all values of a label."""
    everything = VariableOption(selected=True, text="All", value="$__all")
    variable = dashboard.QueryVariable(name).query(query).datasource(SOURCE).multi(True).include_all(True)
    variable = variable.all_value(".*").current(everything).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.regex(regex).sort(VariableSort.ALPHABETICAL_ASC)


if __name__ == "__main__":
    PATH.write_text(built(), encoding="utf-8")
