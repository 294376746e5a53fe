"""Every query of the dashboards and alert rules, as Grafana would send it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
OURS = "poisoning_monitor_"
CHOSEN = {
    "job": ".+",
    "instance": ".+",
    "family": ".+",
    "__rate_interval": "15s",
    "__range": "10m",
}
"""What Grafana puts in the place of variables, with everything chosen."""
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")
OFFSET = re.compile(r" offset -?\w+")
FILTERS = {"==", "!=", ">", "<", ">=", "<=", "and", "or", "unless"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One query, where it stands, and how it is sent."""

    place: str
    expr: str
    instant: bool = False
    exemplar: bool = False

    def filled(self) -> Asked:
        """With values for the variables."""
        expr = re.sub(r"\$\{?(\w+)\}?", lambda found: CHOSEN[found[1]], self.expr)
        return replace(self, expr=expr)

    def metrics(self) -> set[str]:
        """Names of the series it needs, those of recording rules as well."""
        return {selector.name for selector in selectors(promql.parse(self.filled().expr))}


def boards() -> dict[str, dict[str, Any]]:
    """The dashboards as committed, by uid."""
    found = [json.loads(p.read_text("utf-8")) for p in sorted(GRAFANA.glob("dashboards/*.json"))]
    return {board["uid"]: board for board in found}


def panel_queries(board: dict[str, Any]) -> Iterator[Asked]:
    """Of the panels of a dashboard."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            place = f"{board['uid']} / {panel['title']} / {target['refId']}"
            exemplar = bool(target.get("exemplar"))
            yield Asked(place, target["expr"], bool(target.get("instant")), exemplar)


def annotation_queries(board: dict[str, Any]) -> Iterator[Asked]:
    """Of its annotations."""
    for annotation in board["annotations"]["list"]:
        yield Asked(f"{board['uid']} / annotation {annotation['name']}", annotation["expr"])


def variable_queries(board: dict[str, Any]) -> Iterator[tuple[Asked, str]]:
    """Of its variables: the series that are looked at, and the label whose values are chosen."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = LABEL_VALUES.fullmatch(variable["query"])
            assert found is not None, variable
            asked = Asked(f"{board['uid']} / variable {variable['name']}", found[1], instant=True)
            yield asked, found[2]


def alert_rules() -> list[dict[str, Any]]:
    """Grafana's alert rules as committed."""
    text = (GRAFANA / "alerting" / "rules.yaml").read_text("utf-8")
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def alert_queries() -> Iterator[Asked]:
    """Of the alert rules: what they compare, for a comparison has no result until it is true.

    What they compare with some time ago is asked for as of now: a test has no past of hours.
    """
    for rule in alert_rules():
        (query,) = (part["model"] for part in rule["data"] if "expr" in part["model"])
        for number, operand in enumerate(operands(promql.parse(query["expr"]))):
            place = f"alert {rule['title']} / {number}"
            yield Asked(place, OFFSET.sub("", str(operand)), instant=True)


def all_queries() -> list[Asked]:
    """Everything but the variables' own, which ask for labels."""
    found = [
        a
        for b in boards().values()
        for part in (panel_queries, annotation_queries)
        for a in part(b)
    ]
    return [*found, *alert_queries()]


def operands(expr: Any) -> list[Any]:
    """The parts of an expression that should always have a value: what it compares or joins."""
    if isinstance(expr, promql.ParenExpr):
        return operands(expr.expr)
    if isinstance(expr, promql.NumberLiteral):
        return []
    if isinstance(expr, promql.BinaryExpr) and str(expr.op) in FILTERS:
        return operands(expr.lhs) + operands(expr.rhs)
    if isinstance(expr, promql.AggregateExpr):
        inner = operands(expr.expr)
        return [expr] if [str(part) for part in inner] == [str(expr.expr)] else inner
    if isinstance(expr, promql.Call) and expr.func.name.startswith("absent"):
        return [part for argument in expr.args for part in operands(argument)]
    return [expr]


def selectors(expr: Any) -> Iterator[Any]:
    """Every vector selector within."""
    if isinstance(expr, promql.VectorSelector):
        yield expr
        return
    if isinstance(expr, promql.MatrixSelector):
        yield expr.vector_selector
        return
    for name in ("expr", "lhs", "rhs", "param"):
        inner = getattr(expr, name, None)
        if inner is not None and not isinstance(inner, str):
            yield from selectors(inner)
    for argument in getattr(expr, "args", []):
        yield from selectors(argument)
