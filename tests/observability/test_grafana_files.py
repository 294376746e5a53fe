"""What Grafana gets is what the code generates, and each query asks for something documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import promql_parser as promql
import pytest
import yaml

from deploy.grafana.source import files, frame, rules
from monitor.core.types import Family
from tests.observability import grafana_queries as queries
from tests.observability.shipped import RUNBOOKS

DEPLOY = queries.ROOT / "deploy"
NOT_OURS = {"up", "scrape_duration_seconds", "ALERTS"}
BOARDS = queries.boards()
PANELS = [
    pytest.param(board, panel, id=f"{board['uid']}: {panel['title']}")
    for board in BOARDS.values()
    for panel in board["panels"]
]


def documented() -> set[str]:
    """Every name that deploy/metrics.md has, with the suffixes of histograms."""
    text = (DEPLOY / "metrics.md").read_text("utf-8")
    named = set(re.findall(r"`((?:poisoning_monitor|process)_\w+)`", text))
    return named | {f"{name}_bucket" for name in named}


def recorded() -> set[str]:
    """Every name that a recording rule gives."""
    groups = yaml.safe_load(rules.SHIPPED.read_text("utf-8"))["groups"]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def test_files_are_as_generated() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "deploy.grafana.source", "--check"],
        cwd=queries.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    there = {*files.GRAFANA.glob("dashboards/*"), files.GRAFANA / "alerting" / "rules.yaml"}
    assert there == set(files.generated())


def test_every_query_asks_for_documented_metrics() -> None:
    known = documented() | recorded() | NOT_OURS
    asked = queries.all_queries()
    asked += [query for board in BOARDS.values() for query, _ in queries.variable_queries(board)]
    assert len(asked) > 100
    unknown = {query.place: query.metrics() - known for query in asked}
    assert {place: names for place, names in unknown.items() if names} == {}


def test_every_metric_is_on_a_dashboard_or_named_here() -> None:
    shown = {
        name.removesuffix("_bucket") for query in queries.all_queries() for name in query.metrics()
    }
    own = {name for name in documented() if name.startswith("poisoning_monitor_")}
    missing = {name for name in own if not name.endswith("_bucket")} - shown
    # Both are in others: batches in the histograms' counts, restores in the latest one's time.
    assert missing == {
        "poisoning_monitor_batches_total",
        "poisoning_monitor_restore_seconds_total",
    }


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_explains_itself(board: dict[str, Any], panel: dict[str, Any]) -> None:
    place = panel["gridPos"]
    assert panel["title"] and place["x"] + place["w"] <= 24
    if panel["type"] == "row":
        return
    if panel["type"] == "text":
        assert panel["options"]["content"]
        return
    assert len(panel["description"]) > 20
    assert panel["datasource"]["uid"] == "${datasource}"
    heat = panel["type"] == "heatmap"
    unit = panel["options"]["yAxis"]["unit"] if heat else panel["fieldConfig"]["defaults"]["unit"]
    assert unit
    letters = [target["refId"] for target in panel["targets"]]
    assert letters and len(set(letters)) == len(letters)
    if len(letters) > 1:
        assert all(target["legendFormat"] != "__auto" for target in panel["targets"])
    for target in panel["targets"]:
        selected = list(
            queries.selectors(promql.parse(queries.Asked("", target["expr"]).filled().expr))
        )
        assert selected, target["expr"]
        for one in selected:
            labels = {matcher.name for matcher in one.matchers.matchers}
            assert {"job", "instance"} <= labels, f"{one} shows other services' data, too"


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_panels_fill_the_grid_without_overlap(board: dict[str, Any]) -> None:
    cells: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in cells, (panel["title"], cells[x, y])
                cells[x, y] = panel["title"]
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_links_lead_somewhere(board: dict[str, Any]) -> None:
    text = json.dumps(board)
    assert set(re.findall(r"/d/([\w-]+)", text)) == set(BOARDS) - {board["uid"]}
    files_named = re.findall(r"\$\{runbooks\}/([\w.-]+)", text)
    assert files_named
    for name in files_named:
        assert (DEPLOY / "runbooks" / name).is_file(), name


def test_the_link_of_each_family_leads_to_a_page() -> None:
    for family in Family:
        link = frame.FAMILY_RUNBOOK.replace("${__field.labels.family}", family.value)
        assert (RUNBOOKS / link.removeprefix("${runbooks}/")).is_file(), link


def test_the_shipped_rules_name_dashboards_that_exist() -> None:
    for rule in rules.shipped_alerts():
        assert rule["annotations"]["dashboard_uid"] in BOARDS, rule["alert"]


def test_alert_rules_are_the_shipped_ones() -> None:
    made, shipped = queries.alert_rules(), rules.shipped_alerts()
    assert [rule["labels"]["alert"] for rule in made] == [rule["alert"] for rule in shipped]
    for kind in ("uid", "title"):
        assert len({rule[kind] for rule in made}) == len(made), kind
    for ours, theirs in zip(made, shipped, strict=True):
        assert len(ours["uid"]) <= 40
        assert ours["data"][0]["model"]["expr"] == theirs["expr"].strip()
        assert ours["for"] == theirs.get("for", "0s")
        assert {**theirs["labels"], "alert": theirs["alert"]} == ours["labels"]
        assert {part["refId"] for part in ours["data"]} >= {ours["condition"]}
        titles = {p["id"]: p["title"] for p in BOARDS[ours["dashboardUid"]]["panels"]}
        assert ours["panelId"] in titles


@pytest.mark.parametrize(
    "text",
    ["{{ $externalLabels.cluster }}", "{{ range query `up` }}{{ . }}{{ end }}", "{{ $x := 1 }}"],
)
def test_what_grafana_cannot_expand_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Grafana has nothing"):
        rules.converted(text, "https://x")


def test_converted_annotations() -> None:
    text = (
        "{{ $labels.family }}: {{ $value | humanize }}"
        "{{ with printf \"a{job='%s'} == 1\" $labels.job | query }}, yes{{ else }}, no{{ end }}."
    )
    made = rules.converted(text, "https://x")
    assert made == "{{ .Labels.family }}: {{ .Values.query.Value | humanize }}."
    link = (
        "{{ with $externalLabels.runbook_base }}{{ . }}{{ else }}here{{ end }}/a.md#{{ $labels.b }}"
    )
    assert rules.converted(link, "https://x") == "https://x/a.md#{{ .Labels.b }}"


def test_provisioning_fits_together() -> None:
    folder = files.GRAFANA / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    by_uid = {source["uid"]: source for source in sources}
    assert by_uid[rules.DATASOURCE_UID]["type"] == "prometheus"
    assert by_uid[rules.DATASOURCE_UID]["jsonData"]["alertmanagerUid"] in by_uid
    (provider,) = yaml.safe_load((folder / "dashboards" / "poisoning-monitor.yaml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file" and provider["options"]["path"].startswith("/")
    example = (files.GRAFANA / "alerting" / "contact-points.example.yaml").read_text()
    contacts = yaml.safe_load(example)
    named = {point["name"] for point in contacts["contactPoints"]}
    (policy,) = contacts["policies"]
    assert {policy["receiver"], *(route["receiver"] for route in policy["routes"])} == named
    severities = {rule["labels"]["severity"] for rule in queries.alert_rules()}
    routed = {matcher[2] for route in policy["routes"] for matcher in route["object_matchers"]}
    assert severities == routed
