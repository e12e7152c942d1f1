"""What all dashboards are made of. A panel without title, unit, description or query is an error of types."""

from dataclasses import dataclass
from enum import Enum
from itertools import count

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

# The uid of the data source in docker/grafana/provisioning/datasources.
PROMETHEUS = models.DataSourceRef(type_val="prometheus", uid="prometheus")

# The time over which rates are taken: Grafana makes it at least four times the scrape interval.
RATE = "[$__rate_interval]"


class Unit(Enum):
    """Grafana's names of units."""

    BTC = "currencyBTC"
    BYTES = "bytes"
    CORES = "suffix: cores"
    COUNT = "short"
    EVENTS_PER_SECOND = "eps"
    ON_OFF = "bool_on_off"
    RATIO = "percentunit"
    REQUESTS_PER_SECOND = "reqps"
    SECONDS = "s"
    YES_NO = "bool_yes_no"


@dataclass(frozen=True)
class Query:
    """An expression and how its series are named."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A plot over time, a third of a row wide, or the newest value as a number."""

    title: str
    unit: Unit
    description: str
    queries: tuple[Query, ...]
    newest_only: bool = False
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


def of(metric: str, *matchers: str, **labels: str) -> str:
    """A selector of a metric of our services, with matchers in the syntax of Prometheus and labels that have a value."""
    equal = (f'{name}="{value}"' for name, value in {"job": "pydist", **labels}.items())
    return f"{metric}{{{','.join((*equal, *matchers))}}}"


def rate(selector: str) -> str:
    """Events per second."""
    return f"rate({selector}{RATE})"


def quantiles(histogram: str, *matchers: str, **labels: str) -> tuple[Query, ...]:
    """The median and the 99th percentile of a histogram of our services."""
    buckets = rate(of(f"{histogram}_bucket", *matchers, **labels))
    return tuple(
        Query(f"histogram_quantile({quantile}, sum by (le, instance) ({buckets}))", name + " {{instance}}")
        for quantile, name in (("0.5", "p50"), ("0.99", "p99"))
    )


def mean(histogram: str) -> str:
    """The mean of a histogram of our services, for each replica."""
    total, count = (f"sum by (instance) ({rate(of(f'{histogram}_{part}'))})" for part in ("sum", "count"))
    return f"{total} / {count}"


def _target(query: Query, index: int) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(chr(ord("A") + index))


def _plot(panel: Panel) -> timeseries.Panel:
    legend = (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    made = timeseries.Panel().min(0).fill_opacity(10).line_width(1).legend(legend).tooltip(tooltip)
    if panel.stacked:
        made = made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    return made


def _made(panel: Panel) -> timeseries.Panel | stat.Panel:
    made = stat.Panel() if panel.newest_only else _plot(panel)
    made.title(panel.title).description(panel.description).unit(panel.unit.value)
    made.datasource(PROMETHEUS).span(8).height(8)
    for index, query in enumerate(panel.queries):
        made.with_target(_target(query, index))
    return made


def dashboard(
    uid: str, title: str, description: str, rows: tuple[Row, ...], variables: tuple[dashboards.QueryVariable, ...] = ()
) -> models.Dashboard:
    """A dashboard of these rows, with links to the others."""
    others = dashboards.DashboardLink("Other dashboards").type(models.DashboardLinkType.DASHBOARDS).tags(["pydist"]).as_dropdown(True)
    made = (
        dashboards.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["pydist"])
        .readonly()
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .link(others.keep_time(True))
    )
    for variable in variables:
        made.with_variable(variable)
    ids = count(1)
    for row in rows:
        made.with_row(dashboards.Row(row.title).id(next(ids)))
        for panel in row.panels:
            made.with_panel(_made(panel).id(next(ids)))
    return made.build()
