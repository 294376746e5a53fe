"""The shipped rules and configurations: valid, tested by series, and without dangling names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from monitor.core.blast import IndexSize
from monitor.core.desk import Observed
from monitor.core.types import Family
from monitor.detectors import default_detectors
from monitor.telemetry.metrics import Metrics
from tests.checks.prometheus import need, promtool
from tests.observability.shipped import (
    ALERTS,
    DEPLOY,
    PROMETHEUS,
    RULES,
    RUNBOOKS,
    alerts,
    anchors,
    metric_names,
    rules,
)

TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
BASE = "{{ with $externalLabels.runbook_base }}{{ . }}{{ else }}deploy/runbooks{{ end }}"
SUFFIXES = ("_bucket", "_sum", "_count")


def exposed() -> set[str]:
    """Names of all series that the service can expose, as a query would name them."""
    metrics = Metrics(status=dict)
    metrics.watch_reviews(lambda: Observed(0.0, 1, 1, 1, 0, 0.0, 0.0))
    metrics.watch_accepted(lambda: IndexSize(1, 1, 0, 0))
    text = metrics.expose()[0].decode()
    found: set[str] = set()
    for family in text_string_to_metric_families(text):
        found |= {s.name for s in family.samples}
        # Without samples as yet: counters by label, gauges that are absent.
        found.add(family.name + ("_total" if family.type == "counter" else ""))
    return found


def test_the_shipped_configurations_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_the_alertmanagers_example_is_valid() -> None:
    command = [need("amtool"), "check-config", PROMETHEUS / "alertmanager.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_series_that_must_and_must_not_fire(file: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)


def test_every_alert_is_tested_both_ways() -> None:
    """In promtool's files each alert fires somewhere, and somewhere is said not to."""
    fires, silent = set(), set()
    for file in TESTS:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case.get("alert_rule_test", ()):
                (fires if check["exp_alerts"] else silent).add(check["alertname"])
            for check in case.get("promql_expr_test", ()):
                if check["expr"] == "ALERTS" and not check["exp_samples"]:
                    silent |= set(ALERTS)
    assert fires == set(ALERTS) == {rule["alert"] for rule in alerts()}
    assert silent == set(ALERTS)


def test_every_name_in_the_rules_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used: set[str] = set()
    for rule in rules():
        used |= metric_names(rule["expr"])
        for text in rule.get("annotations", {}).values():
            used |= metric_names(text)
    assert used <= recorded | exposed(), used - recorded - exposed()
    assert recorded <= used, "recorded for nobody"


def test_every_name_in_the_documents_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = recorded | exposed() | {n.removesuffix(s) for n in exposed() for s in SUFFIXES}
    for file in (DEPLOY / "metrics.md", *TESTS):
        assert metric_names(file.read_text()) <= known, metric_names(file.read_text()) - known


def test_every_alert_says_what_a_person_needs() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url", "dashboard_uid"}
        assert "$value" in notes["description"], rule["alert"]
        assert notes["dashboard_uid"].startswith("poisoning-monitor-")


def families() -> set[str]:
    """What the label ``family`` may be: the channels of all detectors, and the enum's others."""
    return {d.family.value for d in default_detectors()} | {
        f.value for f in Family if f is not Family.INVALID
    }


def test_every_runbook_link_leads_to_a_page_or_a_heading() -> None:
    for rule in alerts():
        link = rule["annotations"]["runbook_url"]
        assert link.startswith(BASE + "/"), link
        page, _, anchor = link.removeprefix(BASE + "/").partition("#")
        if "{{" in page:
            assert (
                page == "{{ $labels.family }}.md" and "by (namespace, job, family)" in rule["expr"]
            )
            for family in families():
                assert (RUNBOOKS / page.replace("{{ $labels.family }}", family)).is_file(), family
        else:
            assert anchor in anchors(RUNBOOKS / page), link
        assert rule["alert"].lower() in anchors(RUNBOOKS / "alerts.md")


def test_anchors_are_made_as_github_does(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What it means?\n\n### PoisoningRateHigh: label_flip\n\nno # heading\n")
    assert anchors(page) == {"what-it-means", "poisoningratehigh-label_flip"}


def test_links_in_the_metrics_lead_somewhere() -> None:
    page = DEPLOY / "metrics.md"
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (page.parent / target).is_file(), target
