"""What is run: streams, attacks, who sends the poison, and the contestants.

A new attack of ``inject`` is an entry of ATTACKS, a new way of sending an entry of PATTERNS.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtest import streams
from loadtest.detection_metrics import measures, share_of, source_share
from loadtest.detection_peers import PEERS
from monitor.config.policy import Policy
from monitor.config.sections import BatchSettings
from monitor.core.types import Action, BoolArray, FloatArray, Verdict
from monitor.gate import Gate, GateConfig
from monitor.runtime import inject as injectable
from monitor.runtime.inject import Attacked, Stream, inject

BATCH = BatchSettings().max_events
WARMUP = GateConfig().warmup_events
CLEAN_PREFIX = 0.3
RATE = 0.03
GATE = "gate"
SHILLING_PROFILES = ("random", "average", "bandwagon")
Row = dict[str, Any]

# The attacks of the goals, then harder and other ones; those that inject() does not know are left
# out. An entry may give more arguments of inject() than the name.
USUAL_ATTACKS = (
    "flip",
    "targeted",
    "backdoor",
    "backdoor_jitter",
    "clean_label",
    "gradient",
    "frog",
)
ATTACKS: dict[str, Mapping[str, Any]] = {
    name: {"attack": name}
    for name in (
        *USUAL_ATTACKS,
        "backdoor_typical",
        "backdoor_atypical",
        "backdoor_additive",
        "backdoor_additive_jitter",
        "clean_label_collide",
        "accumulative",
        "gradient_scaled",
        "gradient_flipped",
        "gradient_lie",
        "gradient_sybils",
        "replay",
        "replay_same_id",
        *(f"shilling_{aim}_{p}" for aim in ("push", "nuke") for p in SHILLING_PROFILES),
    )
    if name in injectable.ATTACKS
}
HARD_ATTACKS = tuple(
    name
    for name in (
        "backdoor_additive_jitter",
        "clean_label_collide",
        "accumulative",
        "gradient_scaled",
        "gradient_lie",
        "gradient_sybils",
        "replay",
        "shilling_push_average",
        "shilling_nuke_bandwagon",
    )
    if name in ATTACKS
)
# Attacks that move values, and so have a variant with values the column has shown.
SNAPPED = ("backdoor_jitter", "clean_label", "gradient", "frog")

# Arguments of inject() by pattern: who sends, and when.
_ARGUMENTS = inspect.signature(inject).parameters
PATTERNS: dict[str, Mapping[str, Any]] = {
    "burst": {"pattern": "burst", "colluders": 5},
    "stealth": {"pattern": "spread", "colluders": 0},
    "spread40": {"pattern": "burst", "colluders": 40},
    "slow40": {"pattern": "spread", "colluders": 40},
}
HARD_PATTERNS: dict[str, Mapping[str, Any]] = {
    "beside_bursts": {"pattern": "burst", "colluders": 5, "honest_bursts": 5},
    "fresh": {"pattern": "burst", "colluders": "fresh", "newcomers": 0.05},
    "hijacked": {"pattern": "burst", "colluders": "hijacked", "honest_bursts": 0},
}
PATTERNS |= {name: how for name, how in HARD_PATTERNS.items() if set(how) <= set(_ARGUMENTS)}
USUAL_PATTERNS = ("burst", "stealth", "spread40")
# Who rated what: the streams whose events have subjects, which shilling needs.
WITH_SUBJECTS = ("movielens",)


def attack_names(snapped: bool = False, hard: bool = False) -> tuple[str, ...]:
    """The usual attacks, and on request the harder ones."""
    more = tuple(f"{name}+snap" for name in SNAPPED) if snapped or hard else ()
    return (*USUAL_ATTACKS, *more, *(HARD_ATTACKS if hard else ()))


def pattern_names(hard: bool = False) -> tuple[str, ...]:
    return tuple(name for name in PATTERNS if name in USUAL_PATTERNS or hard)


def suits(stream: str, attack: str) -> bool:
    kind = injectable.ATTACKS[attack.removesuffix("+snap")]
    return getattr(kind, "needs", None) != "subject" or stream in WITH_SUBJECTS


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
    attacks: tuple[str, ...] = USUAL_ATTACKS
    patterns: tuple[str, ...] = USUAL_PATTERNS
    contestants: tuple[str, ...] = (GATE, *PEERS)
    seeds: int = 3
    rate: float = RATE
    events: int = 0
    batch: int = BATCH

    def cells(self) -> list[Cell]:
        """Seed by seed, so that an interrupted run has seen every kind of cell."""
        product = itertools.product(range(self.seeds), self.streams, self.attacks, self.patterns)
        return [
            Cell(stream, attack, pattern, seed, self.rate, self.events)
            for seed, stream, attack, pattern in product
            if suits(stream, attack)
        ]


def head(stream: Stream, events: int) -> Stream:
    """The first ``events`` events, whatever columns a stream has."""
    n = len(stream)
    if not events or events >= n:
        return stream
    cut: dict[str, Any] = {
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


def filled(x: FloatArray) -> FloatArray:
    """Peers and learners know no missing values: the column's mean over the clean prefix."""
    missing = np.isnan(x)
    if not missing.any():
        return x
    known = np.nan_to_num(np.nanmean(x[: int(len(x) * CLEAN_PREFIX)], axis=0))
    return np.where(missing, known, x)


def judge_by_peer(name: str, stream: Stream) -> Judgement:
    """A peer has no thresholds: it gets those its scores on the clean prefix suggest."""
    n = len(stream)
    began = time.process_time()
    score = PEERS[name].score(filled(stream.x), stream.y, len(stream.labels))
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
        for role in ("honest_burst", "honest_newcomer"):
            rows_of = getattr(given, role, None)
            if rows_of is not None and rows_of.any():
                found[f"hold_{role}"] = share_of(made.hold[behind], rows_of[behind])
        rows.append(
            cell.columns
            | {"contestant": name, "poisoned": int(poison.sum()), "n": len(poison)}
            | found
            | {"events_per_second": len(given.poison) / max(made.seconds, 1e-9)}
        )
    return rows
