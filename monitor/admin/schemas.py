"""What the interface takes and gives, for /openapi.json. The wire format is the authority."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from monitor.admin.body import JSON, NDJSON
from monitor.admin.problem import PROBLEM

Described = dict[int | str, dict[str, Any]]


class Event(BaseModel):
    """One labelled feedback record."""

    id: str = Field(max_length=128, description="De-duplication key.")
    ts: float | str = Field(description="Unix seconds, or RFC 3339 text.")
    source: str = Field(max_length=256, description="Who supplied the feedback.")
    label: str | int | bool = Field(description="The class the source claims.")
    features: list[float] | dict[str, float | str | bool | None] = Field(
        description="Numbers in a fixed order, or values by name."
    )
    subject: str | None = Field(default=None, description="What the feedback is about.")
    weight: float | None = Field(default=None, gt=0, description="Weight of the event.")
    prediction: Any = Field(default=None, description="What the model said before the feedback.")
    gradient: list[float] | None = Field(default=None, description="Per-example update.")
    meta: Any = Field(default=None, description="Passed through.")


class ReasonOut(BaseModel):
    """One piece of evidence."""

    model_config = ConfigDict(extra="allow")

    detector: str = Field(description="Or decode, warmup: why the event was not judged.")
    score: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    code: str | None = Field(default=None, description="Of an invalid record.")
    text: str = Field(description="A sentence an operator can act on.")
    evidence: dict[str, Any] = Field(default_factory=dict)


class Decision(BaseModel):
    """What the gate decided about one record."""

    model_config = ConfigDict(extra="allow")

    id: str | None
    ts: float | str | None
    source: str | None
    label: str | int | bool | None
    partition: int
    offset: int | None = Field(default=None, description="On Kafka; elsewhere `line`, from 1.")
    verdict: Literal["accept", "flag", "quarantine", "invalid"]
    action: Literal["pass", "hold", "reject"]
    mode: Literal["shadow", "alert", "enforce"]
    risk: float = Field(description="2 = once in 100 ordinary events, 3 = once in 1,000.")
    families: list[str]
    reasons: list[ReasonOut]
    policy_version: int
    incident: str | None = None
    key_id: str | None = Field(default=None, description="The key whose signature was verified.")


class Decisions(BaseModel):
    """One decision an event, in order."""

    decisions: list[Decision]


class Events(BaseModel):
    """Several events."""

    events: list[Event]


class Flagged(BaseModel):
    """Decision records, newest first."""

    events: list[Decision]


class Health(BaseModel):
    """A healthy answer."""

    status: str
    idle_seconds: float = Field(description="Seconds since the loop last moved.")


class ProblemOut(BaseModel):
    """An RFC 9457 problem document."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str = Field(description="A sentence that says what to do.")


_MEANING = {
    400: "The body is not JSON, or neither an event nor a list of events.",
    401: "No token or session, or one that has expired or was revoked.",
    403: "The role is not enough, or a page of another origin asks.",
    404: "There is no such thing (any more).",
    409: "Somebody changed it meanwhile.",
    412: "`If-Match` names a version that is not the latest any more; `current` is.",
    413: "More bytes or events than one request may bring.",
    415: "Another content type than the described ones.",
    422: "A value that is not allowed: `detail` says which and what is.",
    428: "`If-Match` is missing: name the version that you looked at.",
    429: "Too many failed logins; `Retry-After` says for how long.",
    503: "Not now: `detail` says why.",
}


def problems(*codes: int) -> Described:
    """OpenAPI descriptions of problem answers."""
    schema = ProblemOut.model_json_schema()
    return {
        code: {"description": _MEANING[code], "content": {PROBLEM: {"schema": schema}}}
        for code in codes
    }


EXAMPLE = {
    "id": "evt-1",
    "ts": 1_700_000_000,
    "source": "acct-71",
    "label": "legit",
    "features": [0.3, 1.2, -0.7],
}


def inline(model: type[BaseModel]) -> dict[str, Any]:
    """A schema without references, which inside a path item would lead nowhere."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(value) for value in node] if isinstance(node, list) else node

    return dict(resolve(schema))


CHECK_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {
            "schema": {"oneOf": [inline(Event), inline(Events)]},
            "examples": {
                "one": {"summary": "One event", "value": EXAMPLE},
                "several": {"summary": "Several events", "value": {"events": [EXAMPLE]}},
            },
        },
        NDJSON[0]: {"schema": {"type": "string", "description": "One event a line."}},
    },
}

CHECK_RESPONSES: Described = {
    200: {
        "description": "One decision an event, in the shape the events came.",
        "content": {
            JSON: {"schema": {"oneOf": [inline(Decision), inline(Decisions)]}},
            NDJSON[0]: {"schema": {"type": "string", "description": "One decision a line."}},
        },
    },
    **problems(400, 413, 415, 503),
}
