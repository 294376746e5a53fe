"""Exceptions of the policy: overrides, allowed, denied and confirmed sources, found by hash.

A policy is compiled once into sorted tables; a batch is held against them without a loop over its
events. A policy without exceptions has no rules at all (None), and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from monitor.config.policy import Policy
from monitor.config.policy_parts import ListedSource, Override
from monitor.core.hashing import hash_texts
from monitor.core.types import (
    BoolArray,
    ByteArray,
    FloatArray,
    HashArray,
    IntArray,
    Mode,
    Reason,
    Verdict,
)

BY_CONFIRMED, MOST_CONFIRMED = 10, 100
MODES = tuple(Mode)
SCOPES = ("label", "subject", "source")
"""The later one goes before the earlier one."""


class Who(Protocol):
    """Whose events these n are; an ``EventBatch`` is one."""

    @property
    def source(self) -> HashArray:
        """uint64[n], seeded hash."""

    @property
    def subject(self) -> HashArray:
        """uint64[n], seeded hash, 0 for none."""

    @property
    def y(self) -> npt.NDArray[Any]:
        """int[n], index into ``label_names``."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Printed labels."""


@dataclass(frozen=True, slots=True)
class Table:
    """``key`` uint64[m], rising, and the place of what belongs to each, int64[m]."""

    key: HashArray
    place: IntArray

    @classmethod
    def of(cls, texts: Sequence[str], seed: int) -> Table:
        """The places of ``texts``, all different, by their hashes."""
        key = hash_texts(texts, seed) if texts else np.empty(0, dtype=np.uint64)
        order = np.argsort(key, kind="stable")
        return cls(key[order], order.astype(np.int64))

    def find(self, hashes: HashArray) -> IntArray:
        """int64[n] places, −1 where there is none."""
        if not len(self.key):
            return np.full(len(hashes), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.key, hashes), len(self.key) - 1)
        return np.where(self.key[at] == hashes, self.place[at], -1)


@dataclass(frozen=True, slots=True)
class _Overrides:
    """Those of one scope, one a text: shares and modes, NaN and −1 where they leave them be."""

    texts: Mapping[str, int]
    table: Table
    flag_at: FloatArray
    quarantine_at: FloatArray
    mode: npt.NDArray[np.int8]
    names: tuple[str, ...]

    @classmethod
    def of(cls, overrides: Sequence[Override], seed: int) -> _Overrides:
        merged: dict[str, list[Override]] = {}
        for override in overrides:
            merged.setdefault(override.text, []).append(override)

        def last(name: str) -> list[Any]:
            return [
                next((v for o in reversed(of) if (v := getattr(o, name)) is not None), None)
                for of in merged.values()
            ]

        def shares(name: str) -> FloatArray:
            return np.array([math.nan if v is None else v for v in last(name)], dtype=float)

        modes = [-1 if mode is None else MODES.index(mode) for mode in last("mode")]
        return cls(
            {text: place for place, text in enumerate(merged)},
            Table.of(list(merged), seed),
            shares("flag_at"),
            shares("quarantine_at"),
            np.array(modes, dtype=np.int8),
            tuple(", ".join(repr(o.id) for o in of) for of in merged.values()),
        )


@dataclass(frozen=True, slots=True)
class Ruled:
    """What the rules make of n events.

    ``flag_at``, ``quarantine_at`` float64[n] and ``mode`` uint8[n] (place in ``MODES``) hold in
    place of the policy's. ``override`` gives for each scope int64[n] places of overrides,
    ``allowed`` and ``denied`` int64[n] places in the policy's lists, −1 for none; ``confirmed``
    int64[n] is how many events of its source were confirmed, ``factor`` float64[n] what its tail
    probability is divided by for it. ``only`` bool[n]: nothing but the deny list speaks against
    the event.
    """

    flag_at: FloatArray
    quarantine_at: FloatArray
    mode: ByteArray
    override: Mapping[str, IntArray]
    allowed: IntArray
    denied: IntArray
    confirmed: IntArray
    factor: FloatArray
    only: BoolArray
    capped: BoolArray


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy's exceptions, compiled; see :meth:`of`."""

    policy: Policy
    overrides: Mapping[str, _Overrides]
    allow: Table
    deny: Table
    confirmed: Table
    count: IntArray

    @classmethod
    def of(cls, policy: Policy, seed: int) -> Rules | None:
        """The rules of ``policy``, for hashes made with ``seed``; None when it has none."""
        if not (policy.overrides or policy.allow or policy.deny or policy.confirmed):
            return None
        return cls(
            policy,
            {
                scope: _Overrides.of([o for o in policy.overrides if o.scope == scope], seed)
                for scope in SCOPES
                if any(o.scope == scope for o in policy.overrides)
            },
            Table.of([entry.source for entry in policy.allow], seed),
            Table.of([entry.source for entry in policy.deny], seed),
            Table.of(list(policy.confirmed), seed),
            np.array(list(policy.confirmed.values()), dtype=np.int64),
        )

    def on(self, who: Who) -> Ruled:
        """What they make of these events, before anything is concluded."""
        n = len(who.source)
        flag_at = np.full(n, self.policy.flag_at)
        quarantine_at = np.full(n, self.policy.quarantine_at)
        mode = np.full(n, MODES.index(self.policy.mode), dtype=np.uint8)
        found: dict[str, IntArray] = {}
        for scope, overrides in self.overrides.items():
            place = found[scope] = _places(overrides, scope, who)
            rows = np.flatnonzero(place >= 0)
            if len(rows):
                _override(overrides, place[rows], (rows, flag_at, quarantine_at, mode))
        place = self.confirmed.find(who.source)
        count = np.where(place >= 0, self.count[place], 0) if len(self.count) else place * 0
        return Ruled(
            flag_at,
            quarantine_at,
            mode,
            found,
            self.allow.find(who.source),
            self.deny.find(who.source),
            count,
            1.0 + BY_CONFIRMED * np.minimum(count, MOST_CONFIRMED),
            np.zeros(n, dtype=bool),
            np.zeros(n, dtype=bool),
        )

    def denied(self, sources: HashArray) -> IntArray:
        """int64[n] places in the deny list, −1 for none."""
        return self.deny.find(sources)

    def deny_reason(self, place: int, p_value: float = 1.0) -> Reason:
        """Why everything of that source is held back."""
        entry = self.policy.deny[place]
        text = f"source {entry.source} is on the policy's deny list{_because(entry)}"
        return Reason("policy", 0.0, p_value, 0.0, text, {"rule": "deny", "source": entry.source})


def _places(overrides: _Overrides, scope: str, who: Who) -> IntArray:
    if scope == "label":
        by_label = [overrides.texts.get(name, -1) for name in who.label_names]
        return np.asarray(np.array([*by_label, -1], dtype=np.int64)[who.y])
    return overrides.table.find(who.source if scope == "source" else who.subject)


def _override(
    overrides: _Overrides,
    place: IntArray,
    target: tuple[IntArray, FloatArray, FloatArray, ByteArray],
) -> None:
    """Write what the overrides at ``place`` say into the rows of shares and mode."""
    rows, flag_at, quarantine_at, mode = target
    flag, quarantine = overrides.flag_at[place], overrides.quarantine_at[place]
    new = np.where(np.isnan(flag), flag_at[rows], flag)
    held = np.where(np.isnan(quarantine), quarantine_at[rows], quarantine)
    # Where only one of them is given, it draws the other along: what is held back is also flagged.
    held = np.where(np.isnan(quarantine), np.minimum(held, new), held)
    flag_at[rows] = np.where(np.isnan(flag), np.maximum(new, held), new)
    quarantine_at[rows] = held
    chosen = overrides.mode[place]
    mode[rows] = np.where(chosen >= 0, chosen, mode[rows])


def _because(entry: ListedSource) -> str:
    return f" ({entry.why})" if entry.why else ""


def rule_reasons(
    rules: Rules, ruled: Ruled, verdict: ByteArray, tail: FloatArray
) -> dict[int, tuple[tuple[Reason, ...], tuple[Reason, ...]]]:
    """By flagged row with any: reasons that go before those of the detectors, and those behind.

    ``verdict`` uint8[n] and ``tail`` float64[n] are what came out.
    """
    matched = (ruled.denied >= 0) | ruled.capped | (ruled.confirmed > 0)
    for place in ruled.override.values():
        matched |= place >= 0
    out: dict[int, tuple[tuple[Reason, ...], tuple[Reason, ...]]] = {}
    for row in np.flatnonzero(matched & (verdict != Verdict.ACCEPT)).tolist():
        p = float(tail[row])
        denied = int(ruled.denied[row])
        first = (rules.deny_reason(denied, p),) if denied >= 0 else ()
        out[row] = (first, tuple(_behind(rules, ruled, row, p)))
    return out


def _behind(rules: Rules, ruled: Ruled, row: int, p: float) -> list[Reason]:
    found: list[Reason] = []
    flag_at, quarantine_at = float(ruled.flag_at[row]), float(ruled.quarantine_at[row])
    risk = -math.log10(p)
    if ruled.capped[row]:
        entry = rules.policy.allow[int(ruled.allowed[row])]
        text = f"flagged only: source {entry.source} is on the policy's allow list{_because(entry)}"
        evidence = {"rule": "allow", "source": entry.source}
        found.append(Reason("policy", risk, p, quarantine_at, text, evidence))
    if ruled.confirmed[row]:
        n, factor = int(ruled.confirmed[row]), float(ruled.factor[row])
        text = (
            f"people have confirmed {n} events of this source as poison: its tail probability is "
            f"divided by {factor:,.0f}"
        )
        evidence = {"rule": "confirmed", "events": n, "divided_by": factor}  # type: ignore[dict-item]
        found.append(Reason("policy", risk, p, flag_at, text, evidence))
    for scope, place in ruled.override.items():
        if place[row] >= 0:
            name = rules.overrides[scope].names[int(place[row])]
            mode = MODES[int(ruled.mode[row])].value
            text = (
                f"by override {name} of its {scope}: flagged at {flag_at:g}, held back at "
                f"{quarantine_at:g}, mode {mode}"
            )
            evidence = {"rule": "override", "override": name, "scope": scope}
            found.append(Reason("policy", risk, p, flag_at, text, evidence))
    return found
