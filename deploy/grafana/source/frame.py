"""What every dashboard has around its panels: variables, annotations, links between them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from deploy.grafana.source import rules
from deploy.grafana.source.parts import DATASOURCE, RATE, WHERE, metric

TAG = "poisoning-monitor"
CONSOLE = "http://127.0.0.1:8765"
RUNBOOKS = "https://wiki.example.com/poisoning-monitor/runbooks"
"""An example: deploy/runbooks has no public address. A dashboard's variable overrides it."""

FAMILY_RUNBOOK = "${runbooks}/${__field.labels.family}.md"

TITLES = {
    "poisoning-monitor-overview": "Poisoning monitor / Overview",
    "poisoning-monitor-incident": "Poisoning monitor / Incident drill-down",
    "poisoning-monitor-detectors": "Poisoning monitor / Detectors",
    "poisoning-monitor-service": "Poisoning monitor / Service health",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation: what becomes a mark on every time series of a dashboard."""

    name: str
    expr: str
    colour: str
    title: str
    text: str


MARKS = (
    # count_values turns the version from a value into a label, which a title can show.
    Mark(
        "Policy changes",
        'count_values by () ("version", '
        f"{metric('policy_version')} and changes({metric('policy_version')}[{RATE}]) > 0)",
        "blue",
        "Policy version {{version}}",
        "A new version of the policy is in force. Who changed it, and why: "
        "`poisoning-monitor policy history`.",
    ),
    Mark(
        "Incidents",
        f"""sum by (family) ({metric("incidents", 'state="open"')}) > 0""",
        "red",
        "Incident open: {{family}}",
        "`poisoning-monitor incidents list` names its sources and labels.",
    ),
    Mark(
        "Alerts",
        f'ALERTS{{alertstate="firing",alertname=~"{"|".join(rules.alert_names())}"}}',
        "orange",
        "{{alertname}}",
        "{{severity}} {{family}}",
    ),
)


def _query_variable(name: str, label: str, text: str, why: str) -> build.QueryVariable:
    return (
        build.QueryVariable(name)
        .label(label)
        .description(why)
        .datasource(DATASOURCE)
        .query(text)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def family_variable() -> build.QueryVariable:
    """Which families of poisoning an incident is looked at for."""
    return _query_variable(
        "family",
        "Family",
        f"label_values(poisoning_monitor_flagged_total{{{WHERE}}}, family)",
        "Kinds of poisoning that have flagged events so far.",
    )


def _text_variable(name: str, value: str, label: str, why: str) -> build.TextBoxVariable:
    return (
        build.TextBoxVariable(name)
        .label(label)
        .description(why)
        .default_value(value)
        .current(model.VariableOption(selected=True, text=value, value=value))
    )


def frame(uid: str, why: str, *, since: str = "now-1h") -> build.Dashboard:
    """An empty dashboard with the variables, links and annotations that all have."""
    board = (
        build.Dashboard(TITLES[uid])
        .uid(uid)
        .description(why)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time(since, "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            build.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(
            _query_variable(
                "job",
                "Job",
                "label_values(poisoning_monitor_build_info, job)",
                "Scrape job: one monitored stream has one.",
            )
        )
        .with_variable(
            _query_variable(
                "instance",
                "Instance",
                'label_values(poisoning_monitor_build_info{job=~"$job"}, instance)',
                "Replicas; each judges its own partitions.",
            )
        )
    )
    for name, value, label, why_text in (
        ("console", CONSOLE, "Console", "Address of the monitor's own console, for links."),
        ("runbooks", RUNBOOKS, "Runbooks", "Where the runbooks stand, for links."),
    ):
        board = board.with_variable(_text_variable(name, value, label, why_text))
    for other, title in TITLES.items():
        if other != uid:
            board = board.link(
                build.DashboardLink(title.partition(" / ")[2])
                .type(model.DashboardLinkType.LINK)
                .url(f"/d/{other}")
                .include_vars(True)
                .keep_time(True)
            )
    board = board.link(
        build.DashboardLink("Console")
        .type(model.DashboardLinkType.LINK)
        .icon("external link")
        .url("${console}/quarantine?status=open")
        .target_blank(True)
    )
    board = board.link(
        build.DashboardLink("Runbooks")
        .type(model.DashboardLinkType.LINK)
        .icon("doc")
        .url("${runbooks}/alerts.md")
        .target_blank(True)
    )
    for mark in MARKS:
        board = board.annotation(
            build.AnnotationQuery()
            .name(mark.name)
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(mark.colour)
            .expr(mark.expr)
        )
    return board


def as_json(board: build.Dashboard) -> str:
    """The file's text. The schema's annotations lack the titles that Grafana reads: added here."""
    found: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(board.build()))
    texts = {mark.name: mark for mark in MARKS}
    for annotation in found["annotations"]["list"]:
        mark = texts[annotation["name"]]
        annotation.update(titleFormat=mark.title, textFormat=mark.text, useValueForTime=False)
    for place, panel in enumerate(found["panels"], start=1):
        panel["id"] = place
        # The schema leaves a query's letter and editor open; Grafana's own editor fills them in.
        for number, target in enumerate(panel.get("targets", [])):
            target.update(refId=chr(ord("A") + number), editorMode="code")
    return json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
