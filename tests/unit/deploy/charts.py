"""The chart, rendered by Helm's own library, and what its objects have to satisfy."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from helm_python.chart import Chart, lint

DEPLOY = Path(__file__).parents[3] / "deploy"
CHART = DEPLOY / "helm" / "poisoning-monitor"
SCHEMAS = Path(__file__).parent / "schemas"
SETS = tuple(sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*.yaml")))
OLDEST, NEWEST = "1.27.0", "1.37.0"
RELEASE, NAMESPACE = "rel", "ml"
CUSTOM = {
    # kind: versions served
    "PrometheusRule": ("monitoring.coreos.com/v1",),
    "ServiceMonitor": ("monitoring.coreos.com/v1",),
    "ScaledObject": ("keda.sh/v1alpha1",),
    "TriggerAuthentication": ("keda.sh/v1alpha1",),
    "KafkaTopic": ("kafka.strimzi.io/v1",),
    "KafkaUser": ("kafka.strimzi.io/v1",),
}
"""Kinds of others, whose schemas are in ``schemas``; see the README there."""

Object = dict[str, Any]


def values(name: str, **changes: Any) -> dict[str, Any]:
    """A value set of ``ci``; ``changes`` by dotted path, with __ for the dots."""
    found: dict[str, Any] = yaml.safe_load((CHART / f"ci/{name}-values.yaml").read_text())
    for path, value in changes.items():
        *sections, last = path.split("__")
        here = found
        for section in sections:
            here = here.setdefault(section, {})
        here[last] = value
    return found


@functools.cache
def _loaded() -> Chart:
    return Chart.load(CHART)


def render(given: Mapping[str, Any], *, release: str = RELEASE) -> list[Object]:
    """All objects, hooks too. Raises Helm's error when the values are refused."""
    files = _loaded().render(values=dict(given), name=release, namespace=NAMESPACE)
    texts = [text for path, text in files.items() if not path.endswith(".txt")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def notes(given: Mapping[str, Any]) -> str:
    """What the installation says at its end."""
    files = _loaded().render(values=dict(given), name=RELEASE, namespace=NAMESPACE)
    return next(text for path, text in files.items() if path.endswith("NOTES.txt"))


@functools.cache
def _rendered(name: str) -> str:
    return json.dumps(render(values(name)))


def objects(name: str) -> list[Object]:
    """The objects of a value set."""
    found: list[Object] = json.loads(_rendered(name))
    return found


def of_kind(found: list[Object], kind: str) -> list[Object]:
    """Those of one kind."""
    return [item for item in found if item["kind"] == kind]


def only(found: list[Object], kind: str) -> Object:
    """The one of its kind."""
    (item,) = of_kind(found, kind)
    return item


def pods(found: list[Object]) -> Iterator[Object]:
    """Every specification of a pod."""
    for item in found:
        if item["kind"] == "Pod":
            yield item["spec"]
        elif "template" in item.get("spec", {}):
            yield item["spec"]["template"]["spec"]


def containers(found: list[Object]) -> Iterator[Object]:
    """Every container, of the start too."""
    for pod in pods(found):
        yield from pod["containers"]
        yield from pod.get("initContainers", ())


def gate(found: list[Object]) -> Object:
    """The service's container."""
    (container,) = only(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def check(item: Object, version: str = NEWEST) -> None:
    """Hold an object against its kind's schema, in which nothing is allowed that is not named."""
    kind = item["kind"]
    if kind not in CUSTOM:
        kubernetes_validate.validate(item, version, strict=True)
        return
    assert item["apiVersion"] in CUSTOM[kind], item["apiVersion"]
    assert set(item) <= {"apiVersion", "kind", "metadata", "spec"}
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(item["spec"])


def complaints(given: Mapping[str, Any], *, kube: str = NEWEST) -> list[str]:
    """What ``helm lint --strict`` has against the chart with these values."""
    told = lint(CHART, dict(given), strict=True, namespace=NAMESPACE, kube_version=kube)
    return [str(line) for line in told.get("messages", [])] + [
        str(error) for error in told.get("errors", [])
    ]


def plain(text: str) -> str:
    """A value of a secret, as it would stand in one."""
    return base64.b64encode(text.encode()).decode()
