"""A small pure gate whose decisions depend on everything it ever saw, batch cuts included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import xxhash

from monitor.core.errors import RejectCode
from monitor.core.types import Action, DecisionBatch, Mode, RawBatch, Verdict
from monitor.state.view import Exchanged

_ACTION = {
    Verdict.ACCEPT: Action.PASS,
    Verdict.FLAG: Action.PASS,
    Verdict.QUARANTINE: Action.HOLD,
    Verdict.INVALID: Action.REJECT,
}


@dataclass(frozen=True)
class ToyState:
    events: int
    chain: int


@dataclass(frozen=True)
class ToyPolicy:
    version: int = 1


class ToyGate:
    def __init__(self, version: int = 1) -> None:
        self.policy = ToyPolicy(version)

    def start(self) -> ToyState:
        return ToyState(0, 0)

    def step(self, state: ToyState, raw: RawBatch) -> tuple[DecisionBatch, ToyState]:
        chain = xxhash.xxh3_64_intdigest(
            b"".join(
                b"%d:%d:%s" % (at, len(value), value)
                for at, value in zip(raw.offset.tolist(), raw.values, strict=True)
            ),
            seed=state.chain ^ self.policy.version,
        )
        marks = [xxhash.xxh3_64_intdigest(value, seed=state.chain) for value in raw.values]
        verdict = np.array([mark % 4 for mark in marks], dtype=np.uint8)
        records = [
            json.dumps({"offset": at, "label": f"c{mark % 3}", "mark": mark}).encode()
            for at, mark in zip(raw.offset.tolist(), marks, strict=True)
        ]
        return self._decisions(raw, verdict, records), ToyState(state.events + len(raw), chain)

    def _decisions(self, raw: RawBatch, verdict: np.ndarray, records: list[bytes]) -> DecisionBatch:
        n = len(raw)
        action = np.array([_ACTION[Verdict(v)] for v in verdict.tolist()], dtype=np.uint8)
        reject = np.where(verdict == Verdict.INVALID, RejectCode.NOT_JSON, 0).astype(np.uint8)
        return DecisionBatch(
            partition=raw.partition,
            offset=raw.offset,
            risk=np.zeros(n),
            channel=np.where(verdict == Verdict.QUARANTINE, 0, 255).astype(np.uint8),
            verdict=verdict,
            action=action,
            reject=reject,
            warmup=np.zeros(n, dtype=bool),
            p_value=np.full((n, 1), np.nan),
            channels=("label_flip",),
            reasons={},
            policy_version=self.policy.version,
            mode=Mode.ENFORCE,
            records=records,
        )

    def let_by(self, state: ToyState, raw: RawBatch) -> DecisionBatch:
        verdict = np.full(len(raw), Verdict.FLAG, dtype=np.uint8)
        records = [
            json.dumps({"offset": at, "unjudged": True}).encode() for at in raw.offset.tolist()
        ]
        return replace(self._decisions(raw, verdict, records), unjudged=True)

    def relive(self, state: ToyState, raw: RawBatch) -> ToyState:
        return self.step(state, raw)[1]

    def dump(self, state: ToyState) -> bytes:
        return json.dumps([state.events, state.chain]).encode()

    def load(self, data: bytes) -> ToyState:
        return ToyState(*json.loads(data))

    def digest(self, state: ToyState) -> str:
        return f"{state.chain:016x}"


@dataclass(frozen=True)
class ToyView(ToyState):
    """With what was heard of others; empty for nothing."""

    view: str = ""


class SharingToyGate(ToyGate):
    """Its decisions depend on what the others had published, too."""

    def start(self) -> ToyView:
        return ToyView(0, 0)

    def step(self, state: ToyView, raw: RawBatch) -> tuple[DecisionBatch, ToyView]:
        seen = ToyState(state.events, state.chain ^ int(state.view or "0", 16))
        decisions = super().step(seen, raw)[0]
        after = super().step(ToyState(state.events, state.chain), raw)[1]
        return decisions, ToyView(after.events, after.chain, state.view)

    def dump(self, state: ToyView) -> bytes:
        return json.dumps([state.events, state.chain, state.view]).encode()

    def load(self, data: bytes) -> ToyView:
        return ToyView(*json.loads(data))

    def digest(self, state: ToyView) -> str:
        return f"{xxhash.xxh3_64_intdigest(self.dump(state)):016x}"

    def summary(self, data: bytes) -> ToyView:
        return replace(self.load(data), view="")

    def own_summary(self, state: ToyView) -> ToyView:
        return replace(state, view="")

    def exchange(
        self, state: ToyView, number: int, peers: Mapping[int, ToyView]
    ) -> Exchanged[ToyView]:
        heard = "".join(f"{number} {q} {peer.chain} " for q, peer in peers.items())
        view = f"{xxhash.xxh3_64_intdigest(heard.encode()):016x}" if heard else ""
        return Exchanged(replace(state, view=view))

    def alone(self, state: ToyView) -> ToyView:
        return replace(state, view="")

    def view_digest(self, state: ToyView) -> str:
        return state.view
