"""What the dashboards are made of: selectors, queries, panels in one look, variables, annotations.

Colours mean the same on every panel: green reached the learner, orange was flagged, red was held
back, purple was no event at all; promises are dashed and grey.
"""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
WHERE = 'job=~"$job",instance=~"$instance"'
RATE = "$__rate_interval"
VERDICT_COLOURS = {
    "accept": "green",
    "flag": "orange",
    "quarantine": "red",
    "invalid": "purple",
}
Panel = build.Panel | stat.Panel | timeseries.Panel | bargauge.Panel | heatmap.Panel
Query = prometheus.Dataquery
Steps = Sequence[tuple[float, str]]


def metric(name: str, more: str = "") -> str:
    """The series of the instances that are looked at; ``more`` matchers beside those."""
    return f"poisoning_monitor_{name}{{{WHERE}{',' if more else ''}{more}}}"


def rate(name: str, more: str = "", *, by: str = "", over: str = RATE) -> str:
    """Increase per second, summed over instances."""
    grouped = f" by ({by}) " if by else ""
    return f"sum{grouped}(rate({metric(name, more)}[{over}]))"


def share(part: str, whole: str) -> str:
    """A share, absent (not NaN) while the whole is 0."""
    return f"{part} / ({whole} > 0)"


VALID = 'verdict!="invalid"'
SUSPICIOUS, HELD = 'verdict=~"flag|quarantine"', 'verdict="quarantine"'


def is_(label: str, value: str) -> str:
    """A matcher."""
    return f'{label}="{value}"'


def promise(threshold: str) -> str:
    """The promised share of honest events, of ``flag`` or ``quarantine``."""
    return f"max({metric('policy_share', is_('threshold', threshold))})"


def query(expr: str, legend: str = "", *, exemplar: bool = False) -> Query:
    """A query over the time range."""
    made = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").range()
    return made.exemplar(True) if exemplar else made


def now(expr: str, legend: str = "") -> Query:
    """A query for the latest value alone."""
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").instant()


def quantiles(name: str, *qs: float, exemplar: bool = False) -> list[Query]:
    """Quantiles of a histogram, over all instances; exemplars go with the highest."""
    buckets = rate(f"{name}_bucket", by="le")
    return [
        query(
            f"histogram_quantile({q:g}, {buckets})",
            "median" if q == 0.5 else f"{100 * q:g}th percentile",
            exemplar=exemplar and q == max(qs),
        )
        for q in qs
    ]


def thresholds(steps: Steps, base: str = "green") -> build.ThresholdsConfig:
    """``base`` below the first step, then a colour from each step's value on."""
    found = [model.Threshold(value=None, color=base)]
    found += [model.Threshold(value=value, color=colour) for value, colour in steps]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def fixed(colour: str) -> model.DynamicConfigValue:
    """The colour of a series, whatever its value."""
    return model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})


def coloured(panel: timeseries.Panel, colours: dict[str, str]) -> timeseries.Panel:
    """Give series, by name, the colours that they have everywhere."""
    for name, colour in colours.items():
        panel = panel.override_by_name(name, [fixed(colour)])
    return panel


def promised(panel: timeseries.Panel, colours: dict[str, str]) -> timeseries.Panel:
    """Draw series, by name, as dashed lines without area: bounds, not measurements."""
    for name, colour in colours.items():
        panel = panel.override_by_name(
            name,
            [
                fixed(colour),
                model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
                model.DynamicConfigValue("custom.fillOpacity", 0),
                model.DynamicConfigValue("custom.lineWidth", 2),
            ],
        )
    return panel


def series(
    title: str,
    why: str,
    unit: str,
    queries: Sequence[Query],
    *,
    stack: bool = False,
    log: bool = False,
    width: int = 12,
    table: bool = True,
) -> timeseries.Panel:
    """A time series with its latest, mean and largest values in the legend."""
    legend = (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE if table else LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "mean", "max"] if table else [])
    )
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(why)
        .unit(unit)
        .datasource(DATASOURCE)
        .targets(list(queries))
        .span(width)
        .height(9)
        .legend(legend)
        .tooltip(tooltip)
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .draw_style(GraphDrawStyle.LINE)
        .line_width(1)
        .show_points(VisibilityMode.NEVER)
        .fill_opacity(40 if stack else 8)
    )
    if stack:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if log:
        scale = common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
        return panel.scale_distribution(scale)
    return panel.axis_soft_min(0)


def _latest() -> common.ReduceDataOptions:
    """Of each series its latest value."""
    return common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def number(
    title: str,
    why: str,
    unit: str,
    target: Query,
    *,
    steps: Steps = (),
    base: str = "green",
    width: int = 4,
    empty: str = "–",
    text: BigValueTextMode = BigValueTextMode.VALUE,
    line: bool = False,
) -> stat.Panel:
    """One number, coloured by ``steps``; ``empty`` stands there while there is none."""
    mode = BigValueColorMode.BACKGROUND if steps else BigValueColorMode.VALUE
    return (
        stat.Panel()
        .title(title)
        .description(why)
        .unit(unit)
        .datasource(DATASOURCE)
        .targets([target])
        .span(width)
        .height(4)
        .no_value(empty)
        .thresholds(thresholds(steps, base if steps else "text"))
        .color_mode(mode)
        .graph_mode(BigValueGraphMode.AREA if line else BigValueGraphMode.NONE)
        .text_mode(text)
        .reduce_options(_latest())
    )


def bars(
    title: str, why: str, unit: str, target: Query, *, steps: Steps = (), width: int = 12
) -> bargauge.Panel:
    """The latest values side by side, largest names readable."""
    return (
        bargauge.Panel()
        .title(title)
        .description(why)
        .unit(unit)
        .datasource(DATASOURCE)
        .targets([target])
        .span(width)
        .height(9)
        .min(0)
        .thresholds(thresholds(steps, "green" if steps else "blue"))
        .orientation(VizOrientation.HORIZONTAL)
        .reduce_options(_latest())
        .no_value("–")
    )


def heat(title: str, why: str, name: str, *, width: int = 12) -> heatmap.Panel:
    """Where a histogram's observations fall over time, with exemplars on it."""
    target = (
        prometheus.Dataquery()
        .expr(rate(f"{name}_bucket", by="le"))
        .legend_format("{{le}}")
        .format(PromQueryFormat.HEATMAP)
        .range()
        .exemplar(True)
    )
    colour = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(32)
    return (
        heatmap.Panel()
        .title(title)
        .description(why)
        .datasource(DATASOURCE)
        .targets([target])
        .span(width)
        .height(9)
        .calculate(False)
        .color(colour)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .exemplars_color("orange")
        .show_legend()
    )
