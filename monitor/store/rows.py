"""What a held record becomes in the tables, and what a row becomes for people. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import orjson

from monitor.core.desk import Held, ReviewStatus
from monitor.core.held import HeldRecord, Original, held_key
from monitor.store.tables import DETECTOR, FAMILY

MAX_CHARS = 512
"""Of a searched text: PostgreSQL indexes no more than some 2,700 bytes."""
DAY_SECONDS = 86_400


class _Said(msgspec.Struct, gc=False):
    """What is read of an event's own bytes; it was found valid before it was held."""

    id: Any = None
    ts: Any = None
    source: Any = None
    label: Any = None
    subject: Any = None


_said = msgspec.json.Decoder(_Said).decode


def short(text: str) -> str:
    """A text as it is stored and searched: bounded, and without what PostgreSQL cannot hold."""
    return text.replace("\0", "\ufffd")[:MAX_CHARS]


def label_text(label: Any) -> str:
    """A label as text, the way decisions and metrics write it.

    Examples
    --------
    >>> label_text(True), label_text(3), label_text("spam")
    ('true', '3', 'spam')
    """
    return str(label).lower() if isinstance(label, bool) else str(label)


def source_digest(source: str) -> str:
    """SHA-256 of a source's name, by which an erased one is known again."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def _seconds(ts: Any) -> float:
    if isinstance(ts, str):
        try:
            return datetime.fromisoformat(ts).timestamp()
        except ValueError:
            return 0.0
    return float(ts) if isinstance(ts, int | float) else 0.0


def _decoded(record: HeldRecord) -> tuple[dict[str, Any], str]:
    """The decision and its text; put together from what is known where it did not come along."""
    try:
        found = orjson.loads(record.decision)
        if isinstance(found, dict):
            return found, record.decision.decode()
    except orjson.JSONDecodeError:
        pass
    reasons = [{"detector": "", "text": record.reason}] if record.reason else []
    made = {"risk": record.risk, "reasons": reasons}
    return made, orjson.dumps(made).decode()


def _event(value: bytes | None) -> _Said:
    try:
        return _said(value or b"{}")
    except msgspec.MsgspecError:
        return _Said()


def table_rows(
    record: HeldRecord, now: float
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Rows of the tables held, body and tag for one record.

    Parameters
    ----------
    record
        As it was read.
    now
        Unix seconds, for records of which nobody wrote down when they were held.
    """
    (decision, text), original = _decoded(record), record.original
    event = _event(original.value)
    at = {"part": original.partition, "pos": original.offset}
    held_at = record.held_at or now
    reasons = [r for r in decision.get("reasons") or () if isinstance(r, dict)]
    known = {name: decision.get(name, getattr(event, name)) for name in ("id", "source", "label")}
    headers = orjson.dumps([_plain_header(name, value) for name, value in original.headers])
    key = original.key
    size = len(text) + len(original.value or b"") + len(key or b"") + len(headers)
    incident = decision.get("incident")
    row = at | {
        "held_at": held_at,
        "day": int(held_at // DAY_SECONDS),
        "event_id": short(str(known["id"] or "")),
        "source": short(str(known["source"] or "")),
        "subject": short(event.subject) if isinstance(event.subject, str) else None,
        "label": short(label_text("" if known["label"] is None else known["label"])),
        "ts": _seconds(decision.get("ts", event.ts)),
        "risk": float(decision.get("risk", record.risk) or 0.0),
        "policy_version": int(decision.get("policy_version") or 0),
        "incident": None if incident is None else short(str(incident)),
        "status": ReviewStatus.OPEN.value,
        "reason": short(str(reasons[0].get("text", ""))) if reasons else "",
        "size": size,
    }
    bodies = at | {
        "decision": text,
        "value": original.value,
        "record_key": key,
        "headers": headers,
        "stamp": original.timestamp,
    }
    names = [(FAMILY, str(name)) for name in decision.get("families") or ()]
    names += [(DETECTOR, str(r["detector"])) for r in reasons if r.get("detector")]
    tags = [at | {"kind": kind, "name": short(name)} for kind, name in dict.fromkeys(names)]
    return row, bodies, tags


def _plain_header(name: Any, value: bytes | None) -> list[str | None]:
    """A header in hexadecimal digits: its name may be any bytes, its value null."""
    raw: bytes = name if isinstance(name, bytes) else name.encode("utf-8")
    return [raw.hex(), None if value is None else value.hex()]


def _header_name(digits: str) -> str | bytes:
    raw = bytes.fromhex(digits)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def original_of(row: Mapping[str, Any]) -> Original:
    """The record as it came, from a row of the table body.

    Header names that are no text stay bytes.
    """
    headers = [
        (_header_name(name), None if value is None else bytes.fromhex(value))
        for name, value in orjson.loads(bytes(row["headers"]))
    ]
    return Original(
        partition=row["part"],
        offset=row["pos"],
        value=None if row["value"] is None else bytes(row["value"]),
        key=None if row["record_key"] is None else bytes(row["record_key"]),
        headers=tuple(headers),
        timestamp=row["stamp"],
    )


def held_of(row: Mapping[str, Any], tags: Sequence[tuple[int, str]]) -> Held:
    """A held event for people, from a joined row and its tags."""
    reviewed = row.get("review_who") is not None
    return Held(
        key=held_key(row["part"], row["pos"]),
        partition=row["part"],
        offset=row["pos"],
        held_at=row["held_at"],
        event_id=row["event_id"],
        source=row["source"],
        subject=row["subject"],
        label=row["label"],
        ts=row["ts"],
        risk=row["risk"],
        families=tuple(name for kind, name in tags if kind == FAMILY),
        detectors=tuple(name for kind, name in tags if kind == DETECTOR),
        policy_version=row["policy_version"],
        incident=row["incident"],
        status=ReviewStatus(row["status"]),
        reviewed_by=row["review_who"] if reviewed else None,
        reviewed_at=row["review_at"] if reviewed else None,
        review_reason=row["review_why"] if reviewed else None,
        decision=orjson.loads(row["decision"]) if row.get("decision") else {},
        value=bytes(row["value"]) if row.get("value") is not None else b"",
    )
