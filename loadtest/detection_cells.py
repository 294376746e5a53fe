"""What is run: streams, attacks, who sends the poison, and the contestants.

A new attack of ``inject`` is an entry of ATTACKS, a new way of sending an entry of PATTERNS.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtest import streams
from loadtest.detection_metrics import measures, source_share
from loadtest.detection_peers import PEERS
from monitor.config.policy import Policy
from monitor.config.sections import BatchSettings
from monitor.core.types import Action, BoolArray, FloatArray, Verdict
from monitor.gate import Gate, GateConfig
from monitor.runtime.inject import Attacked, Stream, inject

BATCH = BatchSettings().max_events
WARMUP = GateConfig().warmup_events
CLEAN_PREFIX = 0.3
RATE = 0.03
GATE = "gate"
Row = dict[str, Any]

# Arguments of inject() by attack; the names are the benchmark's.
ATTACKS: dict[str, Mapping[str, Any]] = {
    name: {"attack": name}
    for name in (
        "flip",
        "targeted",
        "backdoor",
        "backdoor_jitter",
        "clean_label",
        "gradient",
        "frog",
    )
}
# Attacks that move values, and so have a variant with values the column has shown.
SNAPPED = ("backdoor_jitter", "clean_label", "gradient", "frog")

# Arguments of inject() by pattern: who sends, and when.
PATTERNS: dict[str, Mapping[str, Any]] = {
    "burst": {"pattern": "burst", "colluders": 5},
    "stealth": {"pattern": "spread", "colluders": 0},
    "spread40": {"pattern": "burst", "colluders": 40},
    "slow40": {"pattern": "spread", "colluders": 40},
}
USUAL_PATTERNS = ("burst", "stealth", "spread40")


def attack_names(snapped: bool) -> tuple[str, ...]:
    return (*ATTACKS, *(f"{name}+snap" for name in SNAPPED if snapped))


@dataclass(frozen=True)
class Cell:
    """One attacked copy of one stream. ``events`` of 0 means all of them."""

    stream: str
    attack: str
    pattern: str
    seed: int
    rate: float = RATE
    events: int = 0

    @property
    def snap(self) -> bool:
        return self.attack.endswith("+snap")

    @property
    def key(self) -> str:
        parts = (self.stream, self.attack, self.pattern, self.rate, self.events, self.seed)
        return "/".join(str(part) for part in parts)

    @property
    def columns(self) -> Row:
        return {"key": self.key, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Options:
    """What every mode of the benchmark takes."""

    streams: tuple[str, ...]
    attacks: tuple[str, ...] = tuple(ATTACKS)
    patterns: tuple[str, ...] = USUAL_PATTERNS
    contestants: tuple[str, ...] = (GATE, *PEERS)
    seeds: int = 3
    rate: float = RATE
    events: int = 0
    batch: int = BATCH

    def cells(self) -> list[Cell]:
        """Seed by seed, so that an interrupted run has seen every kind of cell."""
        product = itertools.product(range(self.seeds), self.streams, self.attacks, self.patterns)
        return [Cell(s, a, p, seed, self.rate, self.events) for seed, s, a, p in product]


def head(stream: Stream, events: int) -> Stream:
    """The first ``events`` events, whatever columns a stream has."""
    n = len(stream)
    if not events or events >= n:
        return stream
    cut = {
        f.name: value[:events]
        for f in dataclasses.fields(stream)
        if f.name not in ("name", "columns", "labels")
        and isinstance(value := getattr(stream, f.name), Sequence | np.ndarray)
        and len(value) == n
    }
    return dataclasses.replace(stream, **cut)


@functools.lru_cache(maxsize=2)
def honest(name: str, events: int, seed: int) -> Stream:
    return head(streams.load(name, seed=seed), events)


def attacked(cell: Cell) -> Attacked:
    """The cell's stream with its poison; the same cell gives the same bytes."""
    base = cell.attack.removesuffix("+snap")
    given = {**ATTACKS[base], **PATTERNS[cell.pattern]}
    return inject(
        honest(cell.stream, cell.events, cell.seed),
        given.pop("attack"),
        rate=cell.rate,
        clean_prefix=CLEAN_PREFIX,
        snap=cell.snap,
        seed=cell.seed,
        **given,
    )


@dataclass(frozen=True)
class Judgement:
    """What a contestant made of a stream: n scores, what it would flag and hold back.

    ``passed`` is what reaches the learner; ``p_value`` float64[n, k] by channel and the decision
    ``records`` are the gate's alone.
    """

    score: FloatArray
    flag: BoolArray
    hold: BoolArray
    seconds: float
    warmup: BoolArray
    passed: BoolArray
    p_value: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    channels: tuple[str, ...] = ()
    records: Sequence[bytes] = ()


def judge_by_gate(
    stream: Stream, policy: Policy | None = None, batch: int = BATCH, keep_records: bool = False
) -> Judgement:
    """The whole gate from bytes to decision records, under the default policy unless given.

    The first batch is the warm-up alone: a full one would swallow a third of a short stream.
    """
    lines, gate = stream.lines(), Gate(policy=policy)
    ends = [*range(min(WARMUP, batch), len(lines), batch), len(lines)]
    began = time.process_time()
    made = [gate.check(lines[i:j]) for i, j in itertools.pairwise((0, *ends))]
    seconds = time.process_time() - began
    verdict = np.concatenate([d.verdict for d in made])
    return Judgement(
        score=np.concatenate([d.risk for d in made]),
        flag=verdict >= Verdict.FLAG,
        hold=verdict >= Verdict.QUARANTINE,
        seconds=seconds,
        warmup=np.concatenate([d.warmup for d in made]),
        passed=np.concatenate([d.action for d in made]) == Action.PASS,
        p_value=np.concatenate([d.p_value for d in made]),
        channels=made[-1].channels,
        records=[record for d in made for record in d.records] if keep_records else (),
    )


def judge_by_peer(name: str, stream: Stream) -> Judgement:
    """A peer has no thresholds: it gets those its scores on the clean prefix suggest."""
    n = len(stream)
    began = time.process_time()
    score = PEERS[name].score(stream.x, stream.y, len(stream.labels))
    seconds = time.process_time() - began
    start = int(n * CLEAN_PREFIX)
    flag_at, hold_at = np.quantile(score[start // 2 : start], (0.99, 0.999))
    flag = score > flag_at
    return Judgement(score, flag, score > hold_at, seconds, np.zeros(n, dtype=bool), ~flag)


def judged_from(n: int) -> int:
    """The first event that counts: behind the clean prefix, and behind the gate's warm-up."""
    return max(int(n * CLEAN_PREFIX), min(WARMUP, n // 2))


def judged(name: str, stream: Stream, batch: int = BATCH) -> Judgement:
    return judge_by_gate(stream, batch=batch) if name == GATE else judge_by_peer(name, stream)


def grid_rows(cell: Cell, contestants: Sequence[str], batch: int = BATCH) -> list[Row]:
    """One row a contestant: how it did behind the clean prefix."""
    given = attacked(cell)
    start = judged_from(len(given.poison))
    behind = slice(start, None)
    poison = given.poison[behind]
    rows = []
    for name in contestants:
        made = judged(name, given.stream, batch)
        found = measures(made.score[behind], made.flag[behind], made.hold[behind], poison)
        clean = ~poison
        sources = tuple(itertools.compress(given.stream.source[start:], clean.tolist()))
        found["hold_worst_source"] = source_share(made.hold[behind][clean], sources)
        rows.append(
            cell.columns
            | {"contestant": name, "poisoned": int(poison.sum()), "n": len(poison)}
            | found
            | {"events_per_second": len(given.poison) / max(made.seconds, 1e-9)}
        )
    return rows
