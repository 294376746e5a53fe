"""Laws of provenance: what is not signed as the policy asks changes nothing but its own verdict."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.config.policy import Policy
from monitor.core.errors import RejectCode
from monitor.core.provenance import Outcome
from monitor.core.types import Action, DecisionBatch, Mode, RawBatch, Verdict
from monitor.gate import Gate, GateConfig
from monitor.provenance.headers import claimed, signed_bytes
from monitor.provenance.signing import public_key, signer

START = 1_700_000_000
PRIVATE = {name: name.encode().ljust(32, b".") for name in ("k-1", "k-2", "thief")}
SECRET = b"a secret of more than sixteen bytes"
SIGN = {name: signer("ed25519", raw) for name, raw in PRIVATE.items()}
SIGN["h-1"] = signer("hmac-sha256", SECRET)
GATE = GateConfig(warmup_events=64, secrets={"h": SECRET}.get)


def ed25519(name: str, **more: Any) -> dict[str, Any]:
    public = base64.b64encode(public_key(PRIVATE[name])).decode()
    return {"id": name, "algorithm": "ed25519", "public_key": public, **more}


def hmac(**more: Any) -> dict[str, Any]:
    return {"id": "h-1", "algorithm": "hmac-sha256", "secret": "h", **more}


def policy(*keys: dict[str, Any], **part: Any) -> Policy:
    return Policy.model_validate({"provenance": {"keys": list(keys), **part}})


def event(i: int, source: str = "acct-1", ts: float | None = None) -> bytes:
    rng = np.random.default_rng([7, i])
    y = bool(rng.random() < 0.5)
    found = {
        "id": f"e-{i}",
        "ts": START + i if ts is None else ts,
        "source": source,
        "label": y,
        "features": (rng.normal(size=3) + 2 * y).round(3).tolist(),
    }
    return orjson.dumps(found)


def headers(key: str, value: bytes, at: bytes | None = None) -> list[tuple[str, bytes]]:
    made = [("key-id", key.encode()), ("signature", SIGN[key](signed_bytes(value, at)))]
    return made if at is None else [*made, ("signed-at", at)]


def batch(
    rows: list[tuple[bytes, list[tuple[str, Any]]]], start: int = 0, stamps: Any = None
) -> RawBatch:
    raw = RawBatch.of([value for value, _ in rows], start=start)
    return replace(raw, headers=[h for _, h in rows], timestamps=stamps)


def judged(
    rows: list[tuple[bytes, list[tuple[str, Any]]]], wanted: Policy, stamps: Any = None
) -> tuple[DecisionBatch, list[dict[str, Any]]]:
    """By a gate that has not warmed up yet: nothing but provenance refuses a valid event."""
    gate = Gate(GATE, wanted)
    decided, _ = gate.step(gate.start(), batch(rows, stamps=stamps))
    return decided, [orjson.loads(record) for record in decided.records]


def outcomes(
    rows: list[tuple[bytes, list[tuple[str, Any]]]], wanted: Policy, stamps: Any = None
) -> list[str]:
    decided, records = judged(rows, wanted, stamps)
    assert decided.provenance is not None
    found = [Outcome(int(value)) for value in decided.provenance]
    for row, (outcome, record) in enumerate(zip(found, records, strict=True)):
        held = outcome.is_refusal
        assert record["verdict"] == ("quarantine" if held else "accept")
        assert held == (record["action"] == "hold")
        assert record["key_id"] == decided.key_ids.get(row)
        if held:
            (reason,) = record["reasons"]
            assert reason["detector"] == "provenance" and reason["text"]
            assert reason["evidence"]["code"] == outcome.word
    return [outcome.word for outcome in found]


@pytest.mark.parametrize(("name", "key"), [("k-1", ed25519("k-1")), ("h-1", hmac())])
def test_any_changed_byte_is_refused(name: str, key: dict[str, Any]) -> None:
    value = event(1)
    good = headers(name, value)
    rows = [(value, good)]
    for at in range(len(value)):
        for bit in (1, 0x80):
            changed = value[:at] + bytes([value[at] ^ bit]) + value[at + 1 :]
            rows.append((changed, good))
    signature = good[1][1]
    for at in range(len(signature)):
        changed = signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
        rows.append((value, [good[0], ("signature", changed)]))
    decided, records = judged(rows, policy(key))
    assert decided.provenance is not None
    assert decided.provenance[0] == Outcome.VERIFIED and records[0]["key_id"] == name
    # Many a changed byte also makes it no event.
    assert set(decided.provenance[1:]) == {Outcome.SIGNATURE_BAD, Outcome.NOT_AN_EVENT}
    assert (decided.provenance[-len(signature) :] == Outcome.SIGNATURE_BAD).all()
    assert set(decided.key_ids) == {0} and (decided.action[1:] != Action.PASS).all()


def test_what_the_policy_asks_of_each_source() -> None:
    rules = [
        {"sources": "acct-9*", "signature": "optional"},
        {"sources": "acct-*", "signature": "required"},
        {"sources": "old-*", "signature": "forbidden"},
    ]
    wanted = policy(ed25519("k-1", sources=["acct-*", "x"]), hmac(), rules=rules)
    one, nine, old, other = (event(i, s) for i, s in enumerate(("acct-1", "acct-91", "old-1", "x")))
    thief = [("key-id", b"k-1"), ("signature", SIGN["thief"](one))]
    rows = [
        (one, []),
        (one, headers("k-1", one)),
        (nine, []),
        (nine, headers("h-1", nine)),
        (old, []),
        (old, headers("h-1", old)),
        (other, [("trace", b"1"), ("signed-at", b"whatever")]),
        (other, headers("k-1", other)),
        (one, headers("k-1", nine)),
        (one, thief),
        (one, [("key-id", b"k-9"), ("signature", bytes(64))]),
        (old, headers("k-1", old)),
        (event(9, "y"), headers("k-1", event(9, "y"))),
        (b"{", headers("k-1", b"{")),
    ]
    decided, _ = judged(rows[:-1], wanted)
    assert outcomes(rows[:-1], wanted) == [
        "signature_missing",
        "verified",
        "unsigned",
        "verified",
        "unsigned",
        "signature_forbidden",
        "unsigned",
        "verified",
        "signature_bad",
        "signature_bad",
        "key_unknown",
        "signature_forbidden",
        "key_not_allowed",
    ]
    assert decided.key_ids == {1: "k-1", 3: "h-1", 7: "k-1"}
    assert "acct-*" in decided.reasons[0][0].text and "k-9" in decided.reasons[10][0].text
    broken = judged(rows[-1:], wanted)[0]
    assert broken.reject[0] == RejectCode.NOT_JSON and broken.provenance == [Outcome.NOT_AN_EVENT]
    by_default = policy(ed25519("k-1"), default="required")
    assert outcomes([(other, [])], by_default) == ["signature_missing"]


def test_the_policy_chooses_what_a_refused_event_is() -> None:
    value = event(1)
    rows = [(value, []), (value, headers("k-1", value))]
    part = {"default": "required"}
    for mode, action in ((Mode.ENFORCE, Action.HOLD), (Mode.SHADOW, Action.PASS)):
        wanted = policy(ed25519("k-1"), **part).model_copy(update={"mode": mode})
        decided, records = judged(rows, wanted)
        assert decided.verdict.tolist() == [Verdict.QUARANTINE, Verdict.ACCEPT]
        assert decided.action[0] == action and decided.reject[0] == 0
        assert records[0]["families"] == ["invalid"]
    wanted = policy(ed25519("k-1"), refused="reject", **part)
    decided, records = judged(rows, wanted.model_copy(update={"mode": Mode.SHADOW}))
    assert decided.action.tolist() == [Action.REJECT, Action.PASS]
    assert decided.reject.tolist() == [RejectCode.SIGNATURE_MISSING, 0]
    assert records[0]["verdict"] == "invalid" and records[0]["source"] == "acct-1"
    assert records[0]["reasons"][0] == {
        "detector": "provenance",
        "code": "signature_missing",
        "text": 'source "acct-1" has to sign (by default), and this event is not signed',
    }


def test_keys_are_valid_for_a_time_that_the_sender_cannot_choose_alone() -> None:
    wanted = policy(
        ed25519("k-1", valid_from=float(START), valid_until=START + 1000.0), clock_skew_seconds=60.0
    )

    def of(ts: float, stamp: float | None = None) -> str:
        value = event(1, ts=ts)
        stamps = None if stamp is None else [int(stamp * 1000)]
        return outcomes([(value, headers("k-1", value))], wanted, stamps)[0]

    assert [of(START - 0.001), of(START), of(START + 999.9), of(START + 1000)] == [
        "key_not_yet_valid",
        "verified",
        "verified",
        "key_expired",
    ]
    # Backdated, or postdated: the record's own time stamp says when it came.
    assert of(START + 500, START + 5000) == "key_expired"
    assert of(START + 500, START + 1030) == "verified"  # held up on its way
    assert of(START + 500, START - 500) == "key_not_yet_valid"
    assert of(START + 500, 0) == "verified"  # a transport without time stamps
    # A header signed-at goes before the event's own time, and cannot be changed or left out.
    value = event(1, ts=START + 5000)
    at = b"%d.25" % (START + 1)
    good = headers("k-1", value, at)
    assert outcomes([(value, good)], wanted) == ["verified"]
    later = [*good[:2], ("signed-at", b"%d" % (START + 2))]
    assert outcomes([(value, later), (value, good[:2])], wanted) == ["signature_bad", "key_expired"]


def test_a_revoked_key_is_refused_whatever_time_its_events_claim() -> None:
    old, new = event(1, ts=START - 1e6), event(2, ts=START + 100.0)
    rows = [(value, headers("k-1", value)) for value in (old, new)]
    assert outcomes(rows, policy(ed25519("k-1"))) == ["verified"] * 2
    assert outcomes(rows, policy(ed25519("k-1", revoked_at=START + 50.0))) == ["key_revoked"] * 2
    after = ed25519("k-1", revoked_at=START + 50.0, revoked_after_ts=float(START))
    assert outcomes(rows, policy(after)) == ["verified", "key_revoked"]
    # Backdated, but it came after.
    assert outcomes(rows, policy(after), [(START + 9) * 1000] * 2) == ["key_revoked"] * 2


def test_rotation_and_revocation_hold_from_a_batch_on_without_a_lost_event() -> None:
    both, only_new = policy(ed25519("k-1"), ed25519("k-2")), ed25519("k-2")
    left = policy(ed25519("k-1", revoked_at=float(START)), only_new, default="required")
    gate = Gate(GATE, both)
    found: list[str] = []
    for start, wanted in ((0, both), (100, both), (200, left), (300, left)):
        rows = []
        for i in range(start, start + 100):
            value = event(i, f"acct-{i % 9}")
            rows.append((value, headers("k-1" if i % 2 else "k-2", value)))
        gate = gate.with_policy(wanted)
        decided = gate.check(batch(rows, start))
        assert decided.provenance is not None and len(decided) == 100
        found += [Outcome(int(o)).word for o in decided.provenance]
        assert set(decided.key_ids.values()) == ({"k-1", "k-2"} if wanted is both else {"k-2"})
    assert found[:200] == ["verified"] * 200
    assert found[200:] == ["verified", "key_revoked"] * 100


def test_the_replay_window_is_of_each_key_and_survives_a_restart() -> None:
    wanted = policy(
        ed25519("k-1"), ed25519("k-2"), replay_window_seconds=100.0, clock_skew_seconds=60.0
    )
    gate = Gate(GATE, wanted)

    def row(i: int, key: str, ts: float) -> tuple[bytes, list[tuple[str, bytes]]]:
        value = event(i, ts=ts)
        return value, headers(key, value)

    first = [row(1, "k-1", START + 0.0), row(2, "k-1", START + 500.0), row(3, "k-1", START + 350.0)]
    first += [row(4, "k-2", START + 0.0), row(5, "k-1", START + 400.0)]
    decided, state = gate.step(gate.start(), batch(first))
    assert decided.provenance is not None
    said = [Outcome(int(o)).word for o in decided.provenance]
    assert said == ["verified", "verified", "signed_outside_window", "verified", "verified"]
    assert decided.families[2] == ("replay",)
    again = gate.load(gate.dump(state))
    assert again.signed == state.signed != gate.start().signed
    assert gate.digest(gate.relive(gate.start(), batch(first))) == gate.digest(state)
    late = [row(6, "k-1", START + 390.0), row(7, "k-2", START + 390.0)]
    for one in (state, again):
        decided, _ = gate.step(one, batch(late, 5))
        assert decided.provenance is not None
        assert decided.provenance.tolist() == [Outcome.SIGNED_OUTSIDE_WINDOW, Outcome.VERIFIED]
    # A time far ahead of the record's does not close the window on those behind it.
    ahead = [row(8, "k-2", START + 9e6), row(9, "k-2", START + 5.0)]
    stamps = [(START + 5) * 1000] * 2
    decided, _ = gate.step(gate.start(), batch(ahead, 7, stamps))
    assert decided.provenance is not None
    assert decided.provenance.tolist() == [Outcome.SIGNED_OUTSIDE_WINDOW, Outcome.VERIFIED]
    whole, parts = gate.start(), gate.start()
    everything = [*first, *late]
    whole = gate.step(whole, batch(everything))[1]
    for i, one_row in enumerate(everything):
        parts = gate.step(parts, batch([one_row], i))[1]
    assert whole.signed == parts.signed


def test_refused_events_change_nothing_but_their_own_verdict() -> None:
    wanted = policy(ed25519("k-1"), default="required")
    rows = [(value, headers("k-1", value)) for value in map(event, range(400))]
    forged = [(event(1000 + i, "acct-1"), []) for i in range(400)]
    mixed = [pair for two in zip(rows, forged, strict=True) for pair in two]
    plain, other = Gate(GATE, wanted), Gate(GATE, wanted)
    state = quiet = plain.start()
    # Decided a few at a time: where a young gate cuts its batches is no concern here.
    for start in range(0, 400, 20):
        offsets = np.arange(2 * start, 2 * start + 40)
        alone = replace(batch(rows[start : start + 20]), offset=offsets[::2])
        calm, quiet = plain.step(quiet, alone)
        decided, state = other.step(
            state, replace(batch(mixed[2 * start : 2 * start + 40]), offset=offsets)
        )
        assert decided.verdict[::2].tolist() == calm.verdict.tolist()
        assert decided.risk[::2].tolist() == calm.risk.tolist()
        assert (decided.verdict[1::2] == Verdict.QUARANTINE).all()
    assert plain.digest(quiet) == other.digest(state) and state.events == 400


def test_an_overload_lets_nothing_forged_by() -> None:
    wanted = policy(ed25519("k-1"), default="required")
    gate = Gate(GATE, wanted)
    value = event(1)
    decided = gate.let_by(gate.start(), batch([(value, []), (value, headers("k-1", value))]))
    assert decided.action.tolist() == [Action.HOLD, Action.PASS] and decided.key_ids == {1: "k-1"}


def test_a_secret_that_is_not_here_refuses_only_its_key() -> None:
    gate = Gate(GateConfig(), policy(hmac(), ed25519("k-1")))
    value = event(1)
    rows = [(value, headers("h-1", value)), (value, headers("k-1", value))]
    decided, _ = gate.step(gate.start(), batch(rows))
    assert decided.provenance is not None
    assert decided.provenance.tolist() == [Outcome.KEY_UNAVAILABLE, Outcome.VERIFIED]
    assert "provenance.secret_dir" in decided.reasons[0][0].text


def test_nothing_is_looked_at_unless_the_policy_asks() -> None:
    value = event(1)
    decided, records = judged([(value, [("signature", b"?"), ("signature", b"!")])], Policy())
    assert decided.provenance is None and records[0]["verdict"] == "accept"
    assert records[0]["key_id"] is None


names = st.sampled_from(["signature", "key-id", "signed-at", "", "trace"]) | st.text(max_size=5)
garbage = (
    st.none()
    | st.binary(max_size=140)
    | st.sampled_from([b"k-1", bytes(64), bytes(32), b"A" * 88, b"A" * 43 + b"=", b"1700000000"])
)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(names, garbage), max_size=6))
def test_garbage_in_headers_is_refused_or_ignored(found: list[tuple[str, Any]]) -> None:
    value = event(1)
    wanted = policy(ed25519("k-1"), hmac(), default="required")
    rows = [(value, found), (value, headers("k-1", value))]
    assert claimed(found) is None or isinstance(claimed(found), str | tuple)
    said = outcomes(rows, wanted)
    assert said[0] != "verified" and said[1] == "verified"
