"""The life of an event: where it came from, by what it was judged, and what people did with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from monitor.state.audit_match import place_of
from monitor.state.audit_places import Places, Source

MOST = 100


def lineage(
    source: Source, event_id: str, *, reviews: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Every decision about events with this id, at most 100, and what followed from it.

    Parameters
    ----------
    source
        Where decisions and audit records lie.
    event_id
        The event's own ``id``.
    reviews
        What people said about held events, each with ``key`` (``partition-offset``).
    """
    found = list(_decided(source, event_id))
    if not found:
        return []
    places = Places(source.lines)
    return [_life(source, places, chain, record, reviews) for chain, record in found]


def _decided(source: Source, event_id: str) -> Iterator[tuple[str, bytes]]:
    # As both encoders write it; what they write otherwise is told apart below.
    wanted = b'"id":' + msgspec.json.encode(event_id)
    left = MOST
    for chain, records in source.decisions():
        for record in records:
            if wanted in record and msgspec.json.decode(record).get("id") == event_id:
                yield chain, record
                left -= 1
                if not left:
                    return


def _life(
    source: Source,
    places: Places,
    chain: str,
    record: bytes,
    reviews: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    decision = msgspec.json.decode(record)
    offset = place_of(record)
    key = f"{decision.get('partition')}-{offset}"
    life = described(decision, source.stream, source.place)
    where = places.find(chain, record)
    if where is not None:
        held, row = where
        life |= {
            "state": held.state,
            "software": held.software,
            "audit": {"chain": held.chain, "record": held.seq, "index": row},
        }
    life["reviews"] = [dict(review) for review in reviews if review.get("key") == key]
    life["actions"] = [
        {"what": r.what, "who": r.who, "why": r.why, "when": r.when, "chain": r.chain, "seq": r.seq}
        for r in (told.record for told, _ in places.told)
        if key in _listed(r.details, "keys") or decision.get("id") in _listed(r.details, "ids")
    ]
    return life


def _listed(details: Mapping[str, Any], name: str) -> Sequence[Any]:
    """A list in what a record says; whoever wrote another thing there names no event."""
    found = details.get(name)
    return found if isinstance(found, list) else ()


def described(decision: Mapping[str, Any], stream: str, place: str) -> dict[str, Any]:
    """What a decision record alone says of an event's life.

    ``key_id`` is null until events carry signatures; ``audit`` is null where the chain is not at
    hand, or does not hold this record as it is.
    """
    return {
        "id": decision.get("id"),
        "topic": stream,
        "partition": decision.get("partition"),
        place: decision.get(place),
        "source": decision.get("source"),
        "key_id": decision.get("key_id"),
        "verdict": decision.get("verdict"),
        "action": decision.get("action"),
        "policy_version": decision.get("policy_version"),
        "incident": decision.get("incident"),
        "state": None,
        "software": None,
        "audit": None,
        "decision": dict(decision),
        "reviews": [],
        "actions": [],
    }
