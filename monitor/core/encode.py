"""Decisions as they appear on the wire: one JSON object for each record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import orjson

from monitor.core.errors import RejectCode
from monitor.core.events import Parsed, Partial
from monitor.core.text import clean
from monitor.core.types import Action, DecisionBatch, Family, Mode, RawBatch, Reason, Verdict

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
VERDICT_WORDS = {int(verdict): verdict.word for verdict in Verdict}
ACTION_WORDS = {int(action): action.word for action in Action}
INT64 = 2**63
NOTHING: list[Any] = []
_UNJUDGED = "not judged: the gate was still learning what the features of this stream are; "
_SAYS = "as the setting gate.warmup says"
WARMUP = {
    (Verdict.ACCEPT, Action.PASS): f"let through, {_SAYS} accept",
    (Verdict.QUARANTINE, Action.HOLD): f"held back, {_SAYS} hold",
    (Verdict.QUARANTINE, Action.PASS): (
        "let through: the setting gate.warmup says hold, but in this mode nothing is held back"
    ),
}


def _record_of(place: str) -> Callable[..., Any]:
    """A struct of the wire's fields in its order: twice as fast as a dict, where little is said.

    What is the same for many records is not encoded for each of them: ``verdict`` takes the text
    of ``action`` and ``mode`` along, and ``families`` that of all behind it.
    """
    names = ("id", "ts", "source", "label", "partition", place, "verdict", "risk", "families")
    return msgspec.defstruct("Record", [(name, Any) for name in names], gc=False)


_RECORDS = {"line": _record_of("line"), "offset": _record_of("offset")}
_encoder = msgspec.json.Encoder()


def encode_decisions(
    raw: RawBatch, parsed: Parsed, decisions: DecisionBatch, *, local: bool
) -> list[bytes]:
    """One JSON object for each of the n records, in order, without a newline.

    Parameters
    ----------
    raw, parsed
        The records, and what could be read of them.
    decisions
        What was decided; its ``records`` are not looked at.
    local
        True writes ``line``, from 1, where Kafka has ``offset``.

    Returns
    -------
    list of bytes
        Fields in the order of the wire contract. ``id``, ``ts``, ``source`` and ``label`` are null
        where they could not be read. Decisions of the warm-up carry ``"warmup": true``; the
        reason of an invalid record is its ``code`` and a sentence.
    """
    place, first = ("line", 1) if local else ("offset", 0)
    heads = _heads(len(raw), parsed)
    places = (decisions.offset + first).tolist()
    risks = np.round(decisions.risk, 6).tolist()
    records = _plain_records(heads, places, risks, decisions, place)
    bare = [row for row, record in enumerate(records) if not record] if b"" in records else []
    for row in _busy_rows(decisions).union(bare):
        at = (place, places[row], risks[row])
        records[row] = _full_record(row, heads[row], at, decisions, parsed)
    return records


def _plain_records(
    heads: Sequence[Any], places: list[int], risks: list[float], decisions: DecisionBatch, at: str
) -> list[bytes]:
    """All records as if there were no more to say than verdict and risk; empty where that fails.

    One call for all of them: JSON holds no line feed, so they can be told apart again.
    """
    concluded = decisions.verdict.astype(np.int64) * len(Action) + decisions.action
    told = {code: _told(code, decisions.mode) for code in set(concluded.tolist())}
    rest = b'[],"reasons":[],"policy_version":%d,"incident":null' % decisions.policy_version
    record, partition = _RECORDS[at], decisions.partition
    ends = _ends(rest, len(heads), decisions.key_ids)
    concluded_as = map(told.__getitem__, concluded.tolist())
    # One pass: by the time of a second one the heads have left the cache.
    lines = [
        record(head.id, head.ts, head.source, head.label, partition, place, words, risk, end)
        for head, place, words, risk, end in zip(
            heads, places, concluded_as, risks, ends, strict=True
        )
    ]
    try:
        return _encoder.encode_lines(lines).split(b"\n")[:-1]
    except (TypeError, ValueError, OverflowError):
        return [_encoded(line) for line in lines]


def _ends(rest: bytes, n: int, key_ids: Mapping[int, str]) -> Sequence[msgspec.Raw]:
    """The value of ``families`` with the fields behind it, for each of n records."""
    unsigned = msgspec.Raw(rest + b',"key_id":null')
    if not key_ids:
        return [unsigned] * n
    by_key = {
        name: msgspec.Raw(rest + b',"key_id":' + orjson.dumps(name))
        for name in set(key_ids.values())
    }
    ends = [unsigned] * n
    for row, name in key_ids.items():
        ends[row] = by_key[name]
    return ends


def _told(code: int, mode: Mode) -> msgspec.Raw:
    """The value of ``verdict`` with the fields behind it; ``code`` is verdict · 3 + action."""
    verdict, action = divmod(code, len(Action))
    words = VERDICT_WORDS[verdict], ACTION_WORDS[action], mode.value
    return msgspec.Raw('"{}","action":"{}","mode":"{}"'.format(*words).encode())


def _encoded(line: Any) -> bytes:
    try:
        return _encoder.encode(line)
    except (TypeError, ValueError, OverflowError):
        # Lone surrogates, huge integers or foreign types: rare, and only then they cost.
        return b""


def _full_record(
    row: int, head: Any, at: tuple[str, int, float], decisions: DecisionBatch, parsed: Parsed
) -> bytes:
    """The record of one row with all that there is to say; ``at`` is its place and its risk."""
    place, number, risk = at
    record: dict[str, Any] = {
        "id": head.id,
        "ts": head.ts,
        "source": head.source,
        "label": head.label,
        "partition": decisions.partition,
        place: number,
        "verdict": VERDICT_WORDS[int(decisions.verdict[row])],
        "action": ACTION_WORDS[int(decisions.action[row])],
        "mode": decisions.modes.get(row, decisions.mode).value,
        "risk": risk,
        "families": NOTHING,
        "reasons": NOTHING,
        "policy_version": decisions.policy_version,
        "incident": decisions.incidents.get(row),
        "key_id": decisions.key_ids.get(row),
    }
    record.update(_why(row, decisions, parsed))
    try:
        # The copy has the right size. Keeping what dumps returns is several times slower: each
        # was cut down from a buffer of 1 KiB, and all those remainders are never reused.
        return b"%b" % orjson.dumps(record, option=OPTIONS)
    except TypeError:
        return orjson.dumps(_plain(record), option=OPTIONS)


def _heads(n: int, parsed: Parsed) -> Sequence[Any]:
    """What has id, ts, source and label of each record: the event, or what could be read."""
    if len(parsed.events) == n:
        return parsed.events
    blank = Partial()
    heads: list[Any] = [parsed.partial.get(row, blank) for row in range(n)]
    for row, event in zip(parsed.row.tolist(), parsed.events, strict=True):
        heads[row] = event
    return heads


def _busy_rows(decisions: DecisionBatch) -> set[int]:
    """Rows with more to say than a verdict and a risk."""
    flagged = np.flatnonzero((decisions.reject != 0) | decisions.warmup)
    told = (decisions.families, decisions.modes, decisions.incidents)
    return set(decisions.reasons).union(*told, flagged.tolist())


def _why(row: int, decisions: DecisionBatch, parsed: Parsed) -> dict[str, Any]:
    """Families and reasons of one row, and whether it was judged by the warm-up setting."""
    found = decisions.reasons.get(row, ())
    code = int(decisions.reject[row])
    if code:
        text = found[0].text if found else parsed.detail.get(row, "")
        word = RejectCode(code).word
        detector = found[0].detector if found else "decode"
        reason = {"detector": detector, "code": word, "text": text}
        families = decisions.families.get(row, (Family.INVALID.value,))
        return {"families": list(families), "reasons": [reason]}
    extra: dict[str, Any] = {
        "families": [str(name) for name in decisions.families.get(row, ())],
        "reasons": [_reason(reason) for reason in found],
    }
    if decisions.warmup[row]:
        extra["warmup"] = True
        verdict, action = Verdict(decisions.verdict[row]), Action(decisions.action[row])
        text = _UNJUDGED + WARMUP[verdict, action]
        extra["reasons"] += [{"detector": "warmup", "text": text}]
    return extra


def _reason(reason: Reason) -> dict[str, Any]:
    return {
        "detector": reason.detector,
        "score": reason.score,
        "p_value": reason.p_value,
        "threshold": reason.threshold,
        "text": reason.text,
        "evidence": reason.evidence,
    }


def _plain(value: Any) -> Any:
    """The same value with nothing in it that JSON cannot carry."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {clean(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    small = not isinstance(value, int) or -INT64 <= value < 2 * INT64
    if value is None or (isinstance(value, int | float | datetime) and small):
        return value
    return clean(str(value))
