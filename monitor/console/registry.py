"""The registry of signing keys in words: what each may do, who put it there, what revoking does.

Pure. Keys are as in the policy's ``provenance.keys``, each with its ``state``
(:func:`~monitor.provenance.edit.state_of`); secrets are never in there, only their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monitor.console import words
from monitor.core.desk import Change
from monitor.core.patterns import matches, matches_any
from monitor.provenance import edit

Key = Mapping[str, Any]
NO_END = (None, None)
ORDER = ("valid", "not yet valid", "expired", "revoked")
CHIPS = {"valid": "applied", "not yet valid": "waiting", "revoked": "rejected"}
"""Which colours a state has; the others have none."""
SIGNATURES = {
    "required": "have to sign",
    "optional": "may sign; a signature that is there must be good",
    "forbidden": "must not sign",
}


@dataclass(frozen=True, slots=True)
class Told:
    """Who did something to a key, when (Unix seconds) and by which version of the policy."""

    who: str
    when: float
    version: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Who added a key, and who revoked it; None where the history that was read does not say."""

    added: Told | None = None
    revoked: Told | None = None


def listed(document: Mapping[str, Any], now: float) -> list[dict[str, Any]]:
    """The keys of a policy, each with its state at ``now``, those that are good first."""
    keys = edit.part_of(document)["keys"]
    found = [{**key, "state": edit.state_of(key, now)} for key in keys]
    return sorted(found, key=lambda key: (ORDER.index(key["state"]), key["id"]))


def origins(versions: Iterable[Change]) -> dict[str, Origin]:
    """Of the keys of the latest version: who added and who revoked each.

    Parameters
    ----------
    versions
        Successive versions, the latest first. No more are taken than it needs.
    """
    found: dict[str, Origin] = {}
    newer: Change | None = None
    for older in versions:
        if newer is None:
            found = {str(key["id"]): Origin() for key in _keys(older.policy)}
        else:
            _compare(found, newer, {str(key["id"]): key for key in _keys(older.policy)})
        newer = older
        if all(one.added is not None for one in found.values()):
            break
    if newer is not None and newer.version == 1:
        _compare(found, newer, {})
    return found


def _compare(found: dict[str, Origin], newer: Change, before: Mapping[str, Key]) -> None:
    told = Told(newer.who, newer.when, newer.version)
    for key in _keys(newer.policy):
        name, old = str(key["id"]), before.get(str(key["id"]))
        if name not in found or found[name].added is not None:
            continue
        if found[name].revoked is None and _end(key) not in (NO_END, _end(old or {})):
            found[name] = replace(found[name], revoked=told)
        if old is None:
            found[name] = replace(found[name], added=told)


def _keys(document: Mapping[str, Any]) -> Sequence[Key]:
    part = document.get("provenance")
    return part.get("keys") or () if isinstance(part, Mapping) else ()


def _end(key: Key) -> tuple[Any, Any]:
    return key.get("revoked_at"), key.get("revoked_after_ts")


def chosen(keys: Iterable[Key], text: str) -> list[Key]:
    """Those whose id has ``text`` in it, or that may speak for the source of that name.

    Examples
    --------
    >>> keys = [{"id": "k1", "sources": ["shop-*"]}, {"id": "k2", "sources": ["bank"]}]
    >>> [key["id"] for key in chosen(keys, "shop-7")], [key["id"] for key in chosen(keys, "K")]
    (['k1'], ['k1', 'k2'])
    """
    wanted = text.casefold()
    return [
        key for key in keys if wanted in key["id"].casefold() or matches_any(key["sources"], text)
    ]


def may_be_revoked(key: Key) -> bool:
    """Whether there are events of it that are not refused for good."""
    return key["revoked_at"] is None or key["revoked_after_ts"] is not None


def left_alone(keys: Iterable[Key], key_id: str) -> list[str]:
    """The patterns of sources for which no other key that is valid now speaks.

    Examples
    --------
    >>> a = {"id": "a", "sources": ["shop-*", "bank"], "state": "valid"}
    >>> left_alone([a, {"id": "b", "sources": ["sh*"], "state": "valid"}], "a")
    ['bank']
    """
    # A pattern that matches another one's text matches all that the other does: what the other's
    # star stands for falls to a star of this one.
    others, own = [], []
    for key in keys:
        if key["id"] == key_id:
            own = list(key["sources"])
        elif key["state"] == "valid":
            others += key["sources"]
    return [one for one in own if not any(matches(other, one) for other in others)]


def consequences(
    document: Mapping[str, Any], key_id: str, now: float, after_ts: float | None
) -> list[str]:
    """What revoking the key does, in sentences: what is shown before somebody does it."""
    part = edit.part_of(document)
    what = _refused(part["refused"], str(document.get("mode")))
    if after_ts is None:
        said = ["Every event that it has signed is refused, whatever time the event claims"]
    else:
        when = words.clock(after_ts)
        said = [f"What it signed from {when} UTC on is refused, earlier events stay good"]
    said = [
        f"{said[0]}: {what}.",
        "This holds on every replica from its next micro-batch on, and is final: no edit and no "
        "rollback makes the key good again.",
    ]
    alone = left_alone(listed(document, now), key_id)
    if alone:
        said.append(
            f"No other valid key speaks for {_joined(alone)}: those of these sources that have to "
            "sign can send nothing that passes until they have a new key."
        )
    return said


def taught(found: Mapping[str, Any]) -> str:
    """What of a key was accepted before, of a survey of the blast radius.

    Examples
    --------
    >>> taught({"events": 1, "index": {"keys": "verified"}})
    'The learner was given 1 event of it; that is not taken back by this.'
    >>> taught({"events": 0, "index": {"keys": "claimed"}})
    'The learner was given no event that names it.'
    """
    n = found["events"]
    of_it = "that names it" if found["index"].get("keys") == "claimed" else "of it"
    if not n:
        return f"The learner was given no event {of_it}."
    if n > 1:
        of_it = of_it.replace("names", "name")
    what, is_not = ("event", "that is") if n == 1 else ("events", "they are")
    return (
        f"The learner was given {words.count(n)} {what} {of_it}; {is_not} not taken back by this."
    )


def _refused(what: str, mode: str) -> str:
    if what == "reject":
        return "it goes to the dead letters"
    if mode == "enforce":
        return "it is held back"
    return f"it is marked, but let through, since the policy's mode is {mode}"


def _joined(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def times(key: Key) -> str:
    """For which signed times it is good.

    Examples
    --------
    >>> times({"valid_from": None, "valid_until": None})
    'at any time'
    >>> times({"valid_from": 0.0, "valid_until": 86400.0})
    'from 1970-01-01 00:00:00 until 1970-01-02 00:00:00'
    """
    since, until = key["valid_from"], key["valid_until"]
    said = [] if since is None else [f"from {words.clock(since)}"]
    said += [] if until is None else [f"until {words.clock(until)}"]
    return " ".join(said) or "at any time"


def history(key: Key, origin: Origin) -> str:
    """Who added it and who revoked it, with the times, as far as is known."""
    said = []
    if origin.added is not None:
        one = origin.added
        said.append(f"added by {one.who}, {words.clock(one.when)}, policy version {one.version}")
    if key["revoked_at"] is not None:
        one_ = origin.revoked
        by = "" if one_ is None else f" by {one_.who}"
        said.append(f"revoked{by}, {words.clock(key['revoked_at'])}")
        after = key["revoked_after_ts"]
        if after is not None:
            said.append(f"for what was signed from {words.clock(after)} on")
    return "; ".join(said)
