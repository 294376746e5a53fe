"""Policy documents on their way into the ledger: bounds, and what a change may not undo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitor.config.policy import Policy
from monitor.config.policy_parts import MAX_CHARS, MAX_CONFIRMED, MAX_COUNT
from monitor.config.settings import checked_policy
from monitor.core.errors import UsageError
from monitor.state.control import ControlState

MAX_WORDS = 1_000


def plain(policy: Policy) -> dict[str, Any]:
    """As JSON has it."""
    return policy.model_dump(mode="json")


def words(name: str, text: str) -> str:
    """``text``, if it is not too long to be stored. Raises UsageError."""
    if len(text) > MAX_WORDS:
        raise UsageError(f"{name}: has {len(text):,} characters, at most {MAX_WORDS:,} are stored")
    return text


def overtaken(base: int, state: ControlState) -> str:
    """Why ``base`` is not what a change can be made of."""
    if base > state.version:
        return f"there is no version {base} yet; the latest is {state.version}"
    latest = state.applied[state.version].change
    return (
        f"version {base} is not the latest any more: {latest.who} made version {latest.version}; "
        "look at the difference and decide again"
    )


def with_confirmed(policy: Policy, counts: Mapping[str, int]) -> Policy:
    """With these counts added; of too many sources those with the fewest are forgotten."""
    total = dict(policy.confirmed)
    for source, n in counts.items():
        if n > 0 and 0 < len(source) <= MAX_CHARS:
            total[source] = min(MAX_COUNT, total.get(source, 0) + n)
    if len(total) > MAX_CONFIRMED:
        most = sorted(total, key=lambda source: -total[source])[:MAX_CONFIRMED]
        total = {source: total[source] for source in most}
    return checked_policy({**plain(policy), "confirmed": total}, "policy")


def rolled_back(earlier: Mapping[str, Any], now: Policy) -> dict[str, Any]:
    """An earlier document as it may come back: with the keys and rules for sources of now.

    Else going back to earlier thresholds would make a key good again that was revoked since.
    """
    return {**earlier, "provenance": plain(now)["provenance"]}


def refuse_unrevoked(now: Policy | None, then: Policy) -> None:
    """Raise UsageError where a revoked key would be good again, or for more of its events."""
    for key in () if now is None else now.provenance.keys:
        left = then.provenance.key(key.id)
        if key.revoked_at is None or left is None:
            continue
        before = 0.0 if key.revoked_after_ts is None else key.revoked_after_ts
        after = 0.0 if left.revoked_after_ts is None else left.revoked_after_ts
        if left.revoked_at is None or after > before:
            raise UsageError(
                f"policy: provenance.keys: {key.id} is revoked, which is final; make a new key "
                "under another id"
            )
        if (left.algorithm, left.public_key, left.secret) != (
            key.algorithm,
            key.public_key,
            key.secret,
        ):
            raise UsageError(f"policy: provenance.keys: {key.id} is revoked; its id is not reused")
