"""The policy's keys and rules, compiled: key objects made once, sources looked up once each."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from monitor.config.policy_provenance import ProvenancePolicy, Signature, SigningKey
from monitor.core.patterns import matches, matches_any
from monitor.provenance.signing import Verify, verifier

Secrets = Callable[[str], bytes | None]
"""From the name of a secret to its bytes; None where there is none that can be used."""
MAX_CACHED = 1 << 16
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the registry; ``verify`` is None where its secret is not here.

    Times are nanoseconds since 1970, None for no bound.
    """

    entry: SigningKey
    verify: Verify | None
    valid_from: int | None
    valid_until: int | None
    revoked_after: int | None
    _speaks: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, entry: SigningKey, secrets: Secrets) -> Key:
        """The key that a policy's entry describes."""
        if entry.public_key is not None:
            raw: bytes | None = base64.b64decode(entry.public_key)
        else:
            raw = secrets(entry.secret or "")
        verify = None if raw is None else verifier(entry.algorithm, raw)
        return cls(
            entry,
            verify,
            _ns(entry.valid_from),
            _ns(entry.valid_until),
            _ns(entry.revoked_after_ts),
        )

    def speaks_for(self, source: str) -> bool:
        """Whether it may sign for ``source``."""
        known = self._speaks.get(source)
        if known is None:
            known = matches_any(self.entry.sources, source)
            _remember(self._speaks, source, known)
        return known

    def is_revoked(self, latest_ns: int) -> bool:
        """Whether it is, for an event of which the latest time is ``latest_ns``."""
        if self.entry.revoked_at is None:
            return False
        return self.revoked_after is None or latest_ns >= self.revoked_after


@dataclass(frozen=True, slots=True)
class Registry:
    """Keys by id, and what is asked of each source; see :meth:`of`."""

    policy: ProvenancePolicy
    keys: dict[str, Key]
    skew_ns: int
    window_ns: int | None
    _asked: dict[str, tuple[Signature, str | None]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, policy: ProvenancePolicy, secrets: Secrets) -> Registry | None:
        """Of a policy's part; None where it asks for nothing, so that nothing is looked at."""
        if not policy.is_used:
            return None
        keys = {entry.id: Key.of(entry, secrets) for entry in policy.keys}
        skew, window = policy.clock_skew_seconds, policy.replay_window_seconds
        return cls(policy, keys, int(skew * 1e9), None if window is None else int(window * 1e9))

    def asked(self, source: str) -> tuple[Signature, str | None]:
        """What is asked of ``source``, and the pattern of the rule that says so, None for none."""
        known = self._asked.get(source)
        if known is None:
            rules = self.policy.rules
            rule = next((rule for rule in rules if matches(rule.sources, source)), None)
            known = (rule.signature, rule.sources) if rule else (self.policy.default, None)
            _remember(self._asked, source, known)
        return known


def _remember(cache: dict[str, T], source: str, value: T) -> None:
    if len(cache) >= MAX_CACHED:  # sources are anybody's to invent
        cache.clear()
    cache[source] = value


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)
