"""Whatever is sent to any route: never a crash, and only answers that /openapi.json describes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.admin.problem import PROBLEM
from tests.unit.admin.fake_data import DETECTORS, FAMILIES
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import fake_app, serving

WORDS = (
    "acct-001",
    "legit",
    "open",
    "0-1000",
    "p-1",
    "6",
    "",
    " ",
    "\0",
    "é",
    "../..",
    "nan",
    "1e400",
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=12)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
policies = st.fixed_dictionaries(
    {},
    optional={
        "flag_at": st.floats(0.001, 0.5) | scalars,
        "quarantine_at": st.floats(0.0001, 0.1) | scalars,
        "mode": st.sampled_from(["shadow", "alert", "enforce"]) | scalars,
        "detectors": st.dictionaries(st.sampled_from([*DETECTORS, "x"]), st.just({}), max_size=2)
        | scalars,
        "budget": st.dictionaries(st.sampled_from([*FAMILIES, "x"]), st.just(0.5), min_size=1)
        | scalars,
    },
)


OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in fake_app(None).openapi()["paths"].items()
    for method, operation in methods.items()
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        serving(FakeDesk(held=30, events=200)) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client,
    ):
        yield client


def value_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly what a schema asks for, at times anything."""
    if "anyOf" in schema or "oneOf" in schema:
        return st.one_of([value_of(one) for one in schema.get("anyOf", schema.get("oneOf"))])
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | scalars
    kind = schema.get("type")
    if kind == "object":
        fields = {name: value_of(one) for name, one in schema.get("properties", {}).items()}
        if not fields:
            return policies | anything
        needed = {name: fields[name] for name in schema.get("required", ())}
        optional = {name: one for name, one in fields.items() if name not in needed}
        return st.fixed_dictionaries(needed, optional=optional) | anything
    simple = {
        "string": st.sampled_from(WORDS) | st.text(max_size=12),
        "integer": st.integers(0, 12) | st.integers(),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    if kind == "array":
        return st.lists(value_of(schema.get("items", {})), max_size=3) | scalars
    return simple.get(str(kind), anything)


@st.composite
def requests(draw: st.DrawFn, method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    query: list[tuple[str, str]] = []
    headers = {"content-type": draw(st.sampled_from(["application/json"] * 9 + ["text/plain"]))}
    for parameter in operation.get("parameters", ()):
        name, place = parameter["name"], parameter["in"]
        if place == "path":
            value = draw(value_of(parameter["schema"]) | st.sampled_from(["1", "6", "0-1000"]))
            path = re.sub(rf"\{{{name}\}}", lambda _, v=value: quote(str(v), safe=""), path)
        elif place == "query" and draw(st.booleans()):
            value = draw(value_of(parameter["schema"]))
            query += [(name, str(v)) for v in (value if isinstance(value, list) else [value])]
        elif place == "header" and draw(st.integers(0, 4)):
            headers[name] = f'"{draw(st.integers(5, 9))}"'
    if draw(st.integers(0, 9)) == 0:
        query.append((draw(st.text(max_size=5)), "x"))
    content = b""
    if "requestBody" in operation:
        media = operation["requestBody"]["content"].get("application/json", {})
        body = draw(value_of(media.get("schema", {})))
        content = draw(st.just(dumped(body)) | st.binary(max_size=20))
    return {
        "method": method, "url": path, "params": query, "headers": headers, "content": content
    }  # fmt: skip


def dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):  # larger integers than it writes
        return b'{"why": 1' + b"0" * 40 + b"}"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one[0]} {one[1]}")
def test_answers_are_described(
    client: httpx.Client, operation: tuple[str, str, dict[str, Any]]
) -> None:
    path, described = operation[1], operation[2]["responses"]

    @settings(
        max_examples=40, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(requests(*operation))
    def check(asked: dict[str, Any]) -> None:
        answer = client.request(**asked)
        elsewhere = "{" in path and "nothing at this address" in answer.text
        assert elsewhere or str(answer.status_code) in described, (asked, answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == PROBLEM
            assert answer.json()["detail"].strip()

    check()
