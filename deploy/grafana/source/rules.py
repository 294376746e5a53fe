"""Grafana's own alert rules, made of the shipped Prometheus rules: one source, two engines.

For teams that alert from Grafana and have no Alertmanager. Prometheus still has to evaluate the
recording rules. An alert's expression yields series while it fires and nothing otherwise, so a
series of any value is an alert, and no data is none: the conversion that Grafana itself makes when
it imports Prometheus rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

SHIPPED = Path(__file__).resolve().parents[2] / "prometheus" / "rules.yml"
DATASOURCE_UID = "poisoning-monitor-prometheus"
FOLDER = "Poisoning monitor"
LOOK_BACK_SECONDS = 600
EXPRESSIONS = "__expr__"
Panel = tuple[str, int]


def shipped_alerts() -> list[dict[str, Any]]:
    """The alerting rules as Prometheus gets them, in their order."""
    groups = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def alert_names() -> list[str]:
    """Each name once, in the order of the file."""
    return list(dict.fromkeys(rule["alert"] for rule in shipped_alerts()))


def converted(text: str, runbooks: str) -> str:
    """An annotation in the words of Grafana's templates.

    Those know neither external labels nor queries, and ``$value`` is a sentence there. ``.Labels``
    in the place of ``$labels``: a provisioning file may take a ``$`` for an environment variable.

    Raises
    ------
    ValueError
        When something is left that Grafana would not expand.
    """
    base = r"\{\{-? *with \$externalLabels\.runbook_base *-?\}\}.*?\{\{-? *end *-?\}\}"
    made = re.sub(base, runbooks, text, flags=re.DOTALL)
    asked = r"\s*\{\{-? *with (?:(?!\}\}).)*\| *query *-?\}\}.*?\{\{-? *end *-?\}\}"
    made = re.sub(asked, "", made, flags=re.DOTALL)
    made = re.sub(r"\$value\b", ".Values.query.Value", made).replace("$labels.", ".Labels.").strip()
    if "$" in made or re.search(r"\{\{[^}]*\b(query|with|range|end)\b(?!\.Value)", made):
        raise ValueError(f"Grafana has nothing for this: {made}")
    return made


def _queries(expression: str) -> list[dict[str, Any]]:
    prometheus = {"type": "prometheus", "uid": DATASOURCE_UID}
    own = {"type": EXPRESSIONS, "uid": EXPRESSIONS}
    return [
        {
            "refId": "query",
            "relativeTimeRange": {"from": LOOK_BACK_SECONDS, "to": 0},
            "datasourceUid": DATASOURCE_UID,
            "model": {
                "refId": "query",
                "datasource": prometheus,
                "expr": expression.strip(),
                "instant": True,
                "range": False,
            },
        },
        {
            "refId": "any_value",
            "datasourceUid": EXPRESSIONS,
            "model": {
                "refId": "any_value",
                "datasource": dict(own),
                "type": "math",
                "expression": "is_number($query) || is_nan($query) || is_inf($query)",
            },
        },
        {
            "refId": "fires",
            "datasourceUid": EXPRESSIONS,
            "model": {
                "refId": "fires",
                "datasource": dict(own),
                "type": "threshold",
                "expression": "any_value",
                "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
            },
        },
    ]


def _rule(rule: dict[str, Any], title: str, runbooks: str, panel: Panel) -> dict[str, Any]:
    annotations = {
        name: converted(text, runbooks)
        for name, text in rule["annotations"].items()
        if name != "dashboard_uid"
    }
    words = [rule["alert"], *rule["labels"].values()]
    return {
        "uid": f"pm-{'-'.join(words).lower()}",
        "title": title,
        "condition": "fires",
        "for": rule.get("for", "0s"),
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": {**rule["labels"], "alert": rule["alert"]},
        "annotations": annotations,
        "dashboardUid": panel[0],
        "panelId": panel[1],
        "data": _queries(rule["expr"]),
    }


def provisioning(runbooks: str, panels: Mapping[str, Panel]) -> str:
    """The text of deploy/grafana/alerting/rules.yaml.

    Parameters
    ----------
    runbooks
        Address under which deploy/runbooks can be read.
    panels
        By alert, the dashboard's uid and the id of the panel that shows what it is about.
    """
    found = []
    for rule in shipped_alerts():
        title = f"{rule['alert']} ({', '.join(rule['labels'].values())})"
        found.append(_rule(rule, title, runbooks, panels[rule["alert"]]))
    group = {
        "orgId": 1,
        "name": "poisoning-monitor",
        "folder": FOLDER,
        "interval": "30s",
        "rules": found,
    }
    head = (
        "# Generated from deploy/prometheus/rules.yml: python -m deploy.grafana.source\n"
        "# Alert rules for a Grafana that alerts by itself, see README.md beside this folder.\n"
    )
    body = yaml.safe_dump(
        {"apiVersion": 1, "groups": [group]}, sort_keys=False, width=1000, allow_unicode=True
    )
    return head + body
