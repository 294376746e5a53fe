"""Rules and dashboards in the chart are those of deploy, and arrive in the cluster unchanged."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.unit.deploy.charts import DEPLOY, objects, of_kind

CONFIGMAP_BYTES = 1 << 20


def _sync() -> ModuleType:
    spec = importlib.util.spec_from_file_location("helm_sync", DEPLOY / "helm" / "sync.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sync = _sync()


def test_copies_are_those_of_deploy() -> None:
    told = sync.differences(sync.wanted(), sync.present())
    assert not told, f"run python3 deploy/helm/sync.py: {told}"


def test_sync_tells_rules_from_settings_and_tests(tmp_path: Path) -> None:
    (tmp_path / "prometheus" / "tests").mkdir(parents=True)
    (tmp_path / "grafana" / "dashboards").mkdir(parents=True)
    (tmp_path / "prometheus" / "prometheus.yml").write_text("global: {}\nrule_files: [rules.yml]\n")
    (tmp_path / "prometheus" / "tests" / "a.yml").write_text("tests:\n  - groups: []\n")
    rules = "groups:\n  - name: a\n    rules:\n      - alert: A\n        expr: up\n"
    (tmp_path / "prometheus" / "some.yaml").write_text(rules)
    (tmp_path / "grafana" / "dashboards" / "one.json").write_text("{}")
    found = sync.wanted(tmp_path)
    assert found == {"rules/some.yml": rules.encode(), "dashboards/one.json": b"{}"}
    assert sync.differences(found, {"rules/some.yml": b"", "dashboards/two.json": b""}) == [
        "dashboards/one.json: missing",
        "dashboards/two.json: its original is gone",
        "rules/some.yml: differs",
    ]


def test_rules_arrive_as_they_are() -> None:
    given = [yaml.safe_load(text) for name, text in sync.wanted().items() if "rules/" in name]
    assert given, "deploy/prometheus has no rules"
    rendered = [item["spec"] for item in of_kind(objects("production"), "PrometheusRule")]
    assert rendered == given


def test_runbook_links_take_the_base_that_is_given() -> None:
    links = [
        rule["annotations"]["runbook_url"]
        for item in of_kind(objects("everything"), "PrometheusRule")
        for group in item["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    base = "https://git.example.org/monitor/blob/main/deploy/runbooks/"
    assert links and all(link.startswith(base) and "$externalLabels" not in link for link in links)
    assert not any(link.startswith(f"{base}/") for link in links)


@pytest.mark.parametrize("name", ["production", "everything"])
def test_dashboards_arrive_as_they_are(name: str) -> None:
    given = {
        path.rpartition("/")[2]: text for path, text in sync.wanted().items() if ".json" in path
    }
    maps = [
        item
        for item in of_kind(objects(name), "ConfigMap")
        if item["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]
    rendered = {file: text for item in maps for file, text in item["data"].items()}
    assert rendered.keys() == given.keys() and given
    for file, text in rendered.items():
        assert json.loads(text) == json.loads(given[file])
        assert len(text) < CONFIGMAP_BYTES
    wanted = "monitoring" if name == "everything" else None
    assert {item["metadata"].get("namespace") for item in maps} == {wanted}


def test_the_chart_is_of_the_packages_version() -> None:
    chart = yaml.safe_load((DEPLOY / "helm/poisoning-monitor/Chart.yaml").read_text())
    text = (DEPLOY.parent / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in text
