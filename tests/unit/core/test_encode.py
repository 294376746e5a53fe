"""Decision records on the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from monitor.core.decode import Decoder
from monitor.core.encode import encode_decisions
from monitor.core.types import Action, DecisionBatch, Mode, RawBatch, Reason, Verdict

FIELDS = ["id", "ts", "source", "label", "partition", "offset", "verdict", "action", "mode"]
FIELDS += ["risk", "families", "reasons", "policy_version", "incident", "key_id"]


def records(values: list[bytes], *, local: bool = False, **changes: Any) -> list[dict[str, Any]]:
    raw = RawBatch.of(values, start=40, partition=2)
    parsed = Decoder().parse(raw)
    n = len(values)
    invalid = parsed.reject != 0
    fields: dict[str, Any] = {
        "partition": 2,
        "offset": raw.offset,
        "risk": np.full(n, 1.23456789),
        "channel": np.full(n, 255, dtype=np.uint8),
        "verdict": np.where(invalid, Verdict.INVALID, Verdict.ACCEPT).astype(np.uint8),
        "action": np.where(invalid, Action.REJECT, Action.PASS).astype(np.uint8),
        "reject": parsed.reject,
        "warmup": np.zeros(n, dtype=bool),
        "p_value": np.zeros((n, 0)),
        "channels": (),
        "reasons": {},
        "policy_version": 3,
        "mode": Mode.ENFORCE,
    }
    encoded = encode_decisions(raw, parsed, DecisionBatch(**fields | changes), local=local)
    assert all(b"\n" not in record for record in encoded)
    return [orjson.loads(record) for record in encoded]


def event(**fields: Any) -> bytes:
    base = {"id": "a", "ts": 1.5, "source": "s", "label": True, "features": [1]}
    return orjson.dumps({**base, **fields})


def test_fields_and_their_order() -> None:
    plain = records([event()])[0]
    assert list(plain) == FIELDS
    assert plain["offset"] == 40 and plain["risk"] == 1.234568 and plain["mode"] == "enforce"
    assert (plain["verdict"], plain["action"]) == ("accept", "pass")
    assert plain["incident"] is None and plain["label"] is True and plain["ts"] == 1.5
    local = records([event(), event()], local=True)[1]
    assert local["line"] == 42 and "offset" not in local


def test_times_are_echoed() -> None:
    stamps: list[Any] = [7, 1.7e9 + 0.125, "2024-05-01T10:00:00Z"]
    assert [r["ts"] for r in records([event(ts=ts) for ts in stamps])] == stamps


def test_invalid_records_say_why_and_what_could_be_read() -> None:
    bad = records([event(label=None), b"\xff", event(features=[])])
    assert bad[0]["id"] == "a" and bad[0]["label"] is None and bad[1]["id"] is None
    assert bad[0]["families"] == ["invalid"]
    reason = bad[0]["reasons"][0]
    assert reason["code"] == "missing_field" and reason["text"].startswith("label is null")
    assert (bad[0]["verdict"], bad[0]["action"]) == ("invalid", "reject")


def test_reasons_families_and_warmup() -> None:
    evidence = {"neighbours": np.int64(14), "share": np.array([0.5]), "nan": float("nan")}
    reason = Reason("label_conflict", 3.0, 1e-4, 2.5, "sentence", evidence)
    warm = np.array([False, True])
    found = records(
        [event(), event()], reasons={0: (reason,)}, families={0: ("label_flip",)}, warmup=warm
    )
    assert found[0]["families"] == ["label_flip"] and "warmup" not in found[0]
    first = found[0]["reasons"][0]
    assert list(first) == ["detector", "score", "p_value", "threshold", "text", "evidence"]
    assert first["evidence"] == {"neighbours": 14, "share": [0.5], "nan": None}
    assert found[1]["warmup"] is True and found[1]["families"] == []
    (why,) = found[1]["reasons"]
    assert why["detector"] == "warmup" and "let through" in why["text"]
    doubtful = {"warmup": np.array([True]), "verdict": np.array([Verdict.QUARANTINE])}
    (shadow,) = records([event()], **doubtful, mode=Mode.SHADOW)
    assert "in this mode nothing is held back" in shadow["reasons"][0]["text"]
    (held,) = records([event()], **doubtful, action=np.array([Action.HOLD]))
    assert "held back, as the setting gate.warmup says hold" in held["reasons"][0]["text"]


def test_what_json_cannot_carry_is_replaced() -> None:
    evidence: dict[Any, Any] = {"text": "\ud800x", "big": 2**70, "\udfff": {1, 2}, 3: object}
    found = records([event()], reasons={0: (Reason("d", 1.0, 0.5, 1.0, "\ud8ff", evidence),)})
    reason = found[0]["reasons"][0]
    assert reason["text"] == "\ufffd" and reason["evidence"]["text"] == "\ufffdx"
    assert reason["evidence"]["big"] == str(2**70) and reason["evidence"]["\ufffd"] == [1, 2]


def test_lone_surrogates_in_refused_records() -> None:
    value = b'{"id":"\\ud800","ts":1,"source":"s","label":"\\udfff","features":[NaN]}'
    assert records([value])[0]["id"] == "\ufffd"
