"""Signatures of a batch: who is what they say, and what is refused. Pure.

What is refused leaves the batch before anything is scored or learned: whoever cannot sign for a
source must not be able to say anything about it, not even by being caught.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from monitor.config.policy import Policy
from monitor.core.errors import RejectCode
from monitor.core.events import Parsed, Partial
from monitor.core.provenance import DETECTOR, Outcome
from monitor.core.text import shown
from monitor.core.types import ByteArray, DecisionBatch, Family, IntArray, RawBatch, Reason, Verdict
from monitor.decide.verdicts import actions
from monitor.provenance.headers import Claim, claimed
from monitor.provenance.registry import Key, Registry

MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Signed:
    """The newest time, nanoseconds since 1970, that each key has signed here, by its id.

    Kept only with a replay window; bounded by the policy's keys.
    """

    newest: dict[str, int] = field(default_factory=dict)


class Refusal(NamedTuple):
    """Why an event is refused, and the key that it names; None without one."""

    outcome: Outcome
    text: str
    key_id: str | None = None


class _Pending(NamedTuple):
    """A claim that only its signature can settle: place among the events, key, time in ns."""

    at: int
    claim: Claim
    key: Key
    time_ns: int
    arrived_ns: int | None


@dataclass(frozen=True, slots=True)
class Origins:
    """What the signatures of n records came to.

    Attributes
    ----------
    parsed
        The records, those refused no longer among the events.
    signed
        What is remembered of each key's time after them.
    refused
        By row.
    key_ids
        By row, the key whose signature was verified.
    outcome
        uint8[n]; None where nothing was looked at.
    """

    parsed: Parsed
    signed: Signed
    refused: Mapping[int, Refusal] = field(default_factory=dict)
    key_ids: Mapping[int, str] = field(default_factory=dict)
    outcome: ByteArray | None = None

    def on(self, decisions: DecisionBatch, policy: Policy) -> DecisionBatch:
        """``decisions`` about these records, in which those refused are invalid so far.

        In mode enforce a quarantined one is held back; no override of a mode counts for it, since
        nobody knows whose it is.
        """
        if self.outcome is None:
            return decisions
        done = replace(decisions, key_ids=self.key_ids, provenance=self.outcome)
        if not self.refused:
            return done
        reasons = {row: (_reason(refusal),) for row, refusal in self.refused.items()}
        families = {row: (_family(refusal),) for row, refusal in self.refused.items()}
        done = replace(
            done,
            reasons={**done.reasons, **reasons},
            families={**done.families, **families},
        )
        if policy.provenance.refused == "reject":
            return done
        rows = np.fromiter(self.refused, dtype=np.int64, count=len(self.refused))
        verdict, action = done.verdict.copy(), done.action.copy()
        reject = done.reject.copy()
        verdict[rows], reject[rows] = Verdict.QUARANTINE, 0
        action[rows] = actions(verdict[rows], policy.mode)
        return replace(done, verdict=verdict, action=action, reject=reject)


def check(registry: Registry | None, raw: RawBatch, parsed: Parsed, signed: Signed) -> Origins:
    """Hold the records' signatures against the registry.

    Parameters
    ----------
    registry
        None looks at nothing.
    raw, parsed
        The n records and the m events among them.
    signed
        What was remembered before them.
    """
    if registry is None:
        return Origins(parsed, signed)
    checking = _Checking(registry, raw, parsed)
    checking.look()
    checking.verify()
    signed = checking.window(signed)
    return checking.origins(signed)


class _Checking:
    """One batch on its way; refusals and verified keys by place among the events."""

    def __init__(self, registry: Registry, raw: RawBatch, parsed: Parsed) -> None:
        self._registry, self._raw, self._parsed = registry, raw, parsed
        self._rows: list[int] = parsed.row.tolist()
        self._refused: dict[int, Refusal] = {}
        self._pending: list[_Pending] = []

    def look(self) -> None:
        """All that needs no cryptography."""
        raw, refused = self._raw, self._refused
        headers: Sequence[Sequence[object]] = raw.headers or [()] * len(raw)
        asked = self._registry.asked
        for at, (row, event) in enumerate(zip(self._rows, self._parsed.events, strict=True)):
            claim = claimed(headers[row])
            signature, rule = asked(event.source)
            if claim is None:
                if signature == "required":
                    refused[at] = _unsigned(event.source, rule)
                continue
            if signature == "forbidden":
                refused[at] = _forbidden(event.source, rule)
            elif isinstance(claim, str):
                refused[at] = Refusal(Outcome.SIGNATURE_MALFORMED, f"not a signature: {claim}")
            else:
                self._judge(at, row, claim)

    def _judge(self, at: int, row: int, claim: Claim) -> None:
        key = self._registry.keys.get(claim.key_id)
        time_ns = int(self._parsed.time_ns[at]) if claim.signed_ns is None else claim.signed_ns
        stamps = self._raw.timestamps
        arrived = stamps[row] * MS if stamps is not None and stamps[row] > 0 else None
        source = self._parsed.events[at].source
        refusal = _against(key, claim, source, (time_ns, arrived), self._registry.skew_ns)
        if refusal is not None:
            self._refused[at] = refusal
        elif key is not None:
            self._pending.append(_Pending(at, claim, key, time_ns, arrived))

    def verify(self) -> None:
        """The signatures themselves, in this thread: a second one was not reliably faster."""
        values, rows, good = self._raw.values, self._rows, []
        for pending in self._pending:
            claim, verify = pending.claim, pending.key.verify
            message = claim.message(values[rows[pending.at]])
            if verify is not None and verify(claim.signature, message):
                good.append(pending)
            else:
                self._refused[pending.at] = _bad(claim.key_id)
        self._pending = good

    def window(self, signed: Signed) -> Signed:
        """Refuse what was signed too long before the newest of its key; remember the newest."""
        window = self._registry.window_ns
        if window is None:
            return signed
        newest = {name: ns for name, ns in signed.newest.items() if name in self._registry.keys}
        for pending in self._pending:
            name, now = pending.claim.key_id, pending.time_ns
            latest = newest.get(name, now)
            limit = pending.arrived_ns
            if limit is not None and now > limit + self._registry.skew_ns:
                self._refused[pending.at] = _ahead(name, now - limit)
            elif now < latest - window:
                self._refused[pending.at] = _late(name, latest - now, window)
            else:
                newest[name] = max(latest, now)
        return signed if newest == signed.newest else Signed(newest)

    def origins(self, signed: Signed) -> Origins:
        """What it has come to."""
        rows, refused = self._rows, self._refused
        outcome = np.full(len(self._raw), Outcome.NOT_AN_EVENT, dtype=np.uint8)
        outcome[self._parsed.row] = Outcome.UNSIGNED
        key_ids = {rows[p.at]: p.claim.key_id for p in self._pending}
        if key_ids:
            outcome[list(key_ids)] = Outcome.VERIFIED
        for at, refusal in refused.items():
            outcome[rows[at]] = refusal.outcome
        parsed = _without(self._parsed, refused) if refused else self._parsed
        by_row = {rows[at]: refused[at] for at in sorted(refused)}
        return Origins(parsed, signed, by_row, key_ids, outcome)


def _without(parsed: Parsed, refused: Mapping[int, Refusal]) -> Parsed:
    """``parsed`` without the events at these places, which become invalid records."""
    kept = [at for at in range(len(parsed.events)) if at not in refused]
    reject, detail, partial = parsed.reject.copy(), dict(parsed.detail), dict(parsed.partial)
    for at, refusal in refused.items():
        row, event = int(parsed.row[at]), parsed.events[at]
        reject[row] = RejectCode[refusal.outcome.name]
        detail[row] = refusal.text
        partial[row] = Partial(event.id, event.ts, event.source, event.label)
    index: IntArray = np.array(kept, dtype=np.int64)
    return replace(
        parsed,
        reject=reject,
        detail=detail,
        partial=partial,
        row=parsed.row[index],
        events=[parsed.events[at] for at in kept],
        time_ns=parsed.time_ns[index],
        packed=None if parsed.packed is None else parsed.packed.rows(kept),
    )


def _against(
    key: Key | None, claim: Claim, source: str, times: tuple[int, int | None], skew: int
) -> Refusal | None:
    """What speaks against a claim before its signature is looked at."""
    name, (signed, arrived) = claim.key_id, times
    if key is None:
        text = f"signed with key {shown(name)}, which the registry does not have"
        return Refusal(Outcome.KEY_UNKNOWN, text, name)
    # A time that the sender claims is bounded by the one its record has.
    latest = signed if arrived is None else max(signed, arrived)
    if key.is_revoked(latest):
        text = f"signed with key {name}, which is revoked{_because(key)}"
        return Refusal(Outcome.KEY_REVOKED, text, name)
    if not key.speaks_for(source):
        text = f"key {name} may not speak for source {shown(source)}, only for {_sources(key)}"
        return Refusal(Outcome.KEY_NOT_ALLOWED, text, name)
    if key.verify is None:
        text = (
            f"signed with key {name}, whose secret {key.entry.secret!r} this replica does not "
            "have: look at provenance.secret_dir"
        )
        return Refusal(Outcome.KEY_UNAVAILABLE, text, name)
    return _out_of_time(key, name, times, skew)


def _out_of_time(key: Key, name: str, times: tuple[int, int | None], skew: int) -> Refusal | None:
    (signed, arrived), began, ended = times, key.valid_from, key.valid_until
    if began is not None and (signed < began or (arrived is not None and arrived + skew < began)):
        text = f"signed with key {name}, which is valid only from Unix time {began / 1e9:.0f} on"
        return Refusal(Outcome.KEY_NOT_YET_VALID, text, name)
    if ended is not None and (signed >= ended or (arrived is not None and arrived - skew >= ended)):
        text = f"signed with key {name}, which was valid until Unix time {ended / 1e9:.0f}"
        return Refusal(Outcome.KEY_EXPIRED, text, name)
    return None


def _sources(key: Key) -> str:
    named = [shown(pattern) for pattern in key.entry.sources[:3]]
    return ", ".join(named) + (" and more" if len(key.entry.sources) > 3 else "")


def _because(key: Key) -> str:
    return f" ({shown(key.entry.why, 200)})" if key.entry.why else ""


def _unsigned(source: str, rule: str | None) -> Refusal:
    text = f"source {shown(source)} has to sign ({_rule(rule)}), and this event is not signed"
    return Refusal(Outcome.SIGNATURE_MISSING, text)


def _forbidden(source: str, rule: str | None) -> Refusal:
    text = f"source {shown(source)} may not sign ({_rule(rule)}), and this event has a signature"
    return Refusal(Outcome.SIGNATURE_FORBIDDEN, text)


def _rule(pattern: str | None) -> str:
    return "by default" if pattern is None else f"rule {shown(pattern)}"


def _bad(name: str) -> Refusal:
    text = (
        f"the signature is not one of key {name} over these bytes: the event was changed on its "
        "way, or signed with another key"
    )
    return Refusal(Outcome.SIGNATURE_BAD, text, name)


def _late(name: str, behind: int, window: int) -> Refusal:
    text = (
        f"signed {behind / 1e9:,.0f} s before the newest event of key {name}; the replay window "
        f"is {window / 1e9:,.0f} s: an old event sent again, or one that was held up on its way"
    )
    return Refusal(Outcome.SIGNED_OUTSIDE_WINDOW, text, name)


def _ahead(name: str, ahead: int) -> Refusal:
    text = (
        f"signed by key {name} for a time {ahead / 1e9:,.0f} s after its record's: a wrong clock, "
        "or an attempt to close the replay window on later events"
    )
    return Refusal(Outcome.SIGNED_OUTSIDE_WINDOW, text, name)


def _family(refusal: Refusal) -> str:
    late = refusal.outcome is Outcome.SIGNED_OUTSIDE_WINDOW
    return (Family.REPLAY if late else Family.INVALID).value


def _reason(refusal: Refusal) -> Reason:
    evidence = {"code": refusal.outcome.word, "claimed_key_id": refusal.key_id}
    return Reason(DETECTOR, 0.0, 1.0, 0.0, refusal.text, evidence)
