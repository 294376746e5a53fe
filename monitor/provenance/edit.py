"""Changes of the registry within a policy document, as plain values. Pure.

The document is checked as a whole afterwards, by whoever makes it the next version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from monitor.config.policy_provenance import ProvenancePolicy, SigningKey
from monitor.core.desk import MissingError
from monitor.core.errors import UsageError

Document = Mapping[str, Any]


def part_of(document: Document) -> dict[str, Any]:
    """The part about provenance, complete; what is absent has its default."""
    return ProvenancePolicy.model_validate(document.get("provenance", {})).model_dump(mode="json")


def changes_provenance(before: Document, after: Document) -> bool:
    """Whether the documents differ in that part. One that is not allowed does, too."""
    try:
        return part_of(before) != part_of(after)
    except ValidationError:
        return True


def state_of(key: Mapping[str, Any], now: float) -> str:
    """One word about a key at ``now``, Unix seconds.

    Examples
    --------
    >>> state_of({"valid_until": 5.0}, 7.0), state_of({"revoked_at": 1.0}, 0.0)
    ('expired', 'revoked')
    """
    if key.get("revoked_at") is not None:
        return "revoked"
    since, until = key.get("valid_from"), key.get("valid_until")
    if since is not None and now < since:
        return "not yet valid"
    return "expired" if until is not None and now >= until else "valid"


def added(document: Document, key: Mapping[str, Any]) -> dict[str, Any]:
    """``document`` with one more key. Raises UsageError for one that is not allowed."""
    part = part_of(document)
    entry = _checked(key)
    if entry["revoked_at"] is not None:
        raise UsageError("key: a new one is not revoked; leave revoked_at out")
    if any(known["id"] == entry["id"] for known in part["keys"]):
        raise UsageError(f"key: there is one with the id {entry['id']!r}; ids are not reused")
    return {**document, "provenance": {**part, "keys": [*part["keys"], entry]}}


def revoked(
    document: Document, key_id: str, *, now: float, after_ts: float | None, why: str
) -> dict[str, Any]:
    """``document`` with the key revoked, for events from ``after_ts`` on or for all.

    A key revoked already can be revoked for more events, not for fewer; for the same ones the
    document stays as it is, with the reason that was given first.
    """
    part = part_of(document)
    known = _found(part, key_id)
    if known["revoked_at"] is not None and known["revoked_after_ts"] == after_ts:
        return dict(document)
    at = known["revoked_at"] if known["revoked_at"] is not None else now
    entry = {**known, "revoked_at": at, "revoked_after_ts": after_ts, "why": why}
    return {**document, "provenance": _with(part, entry)}


def rotated(
    document: Document, key_id: str, key: Mapping[str, Any], *, until: float
) -> dict[str, Any]:
    """``document`` with ``key`` beside the old one, which is valid until Unix time ``until``.

    The new one speaks for the old one's sources unless it says for which.
    """
    part = part_of(document)
    old = _found(part, key_id)
    if old["revoked_at"] is not None:
        raise UsageError(f"{key_id} is revoked; add the new key instead")
    ends = until if old["valid_until"] is None else min(until, old["valid_until"])
    left = {**document, "provenance": _with(part, {**old, "valid_until": ends})}
    return added(left, {"sources": old["sources"], **key})


def _checked(key: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return SigningKey.model_validate(dict(key)).model_dump(mode="json")
    except ValidationError as error:
        # Never what was given: somebody may have put a secret in a wrong place.
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(place) for place in ("key", *problem["loc"]))
        raise UsageError(f"{where}: {problem['msg'].removeprefix('Value error, ')}") from None


def _found(part: Mapping[str, Any], key_id: str) -> dict[str, Any]:
    for key in part["keys"]:
        if key["id"] == key_id:
            return dict(key)
    raise MissingError(f"the registry has no key {key_id!r}")


def _with(part: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    keys = [entry if key["id"] == entry["id"] else key for key in part["keys"]]
    return {**part, "keys": keys}
