"""The monitor under attack itself: poison in the prefix it learns from, and a lot of it later."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from loadtest.detection_cells import (
    ATTACKS,
    CLEAN_PREFIX,
    GATE,
    PATTERNS,
    Cell,
    Row,
    honest,
    judged,
    judged_from,
)
from loadtest.detection_metrics import measures
from loadtest.detection_view import by_cell, markdown, of, with_interval
from monitor.core.types import BoolArray
from monitor.runtime.inject import Attacked, Stream, inject

# Share of poison in the prefix, and behind it.
STAGES = ((0.0, 0.03), (0.05, 0.03), (0.0, 0.15), (0.05, 0.15))


def _restored(stream: Stream, original: Stream, rows: BoolArray) -> Stream:
    """``stream`` with ``rows`` as they were, whatever columns a stream has."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(stream):
        now, before = getattr(stream, field.name), getattr(original, field.name)
        if field.name in ("name", "columns", "labels") or before is None:
            continue
        if isinstance(now, np.ndarray):
            by_row = rows.reshape(-1, *[1] * (now.ndim - 1))
            changed[field.name] = np.where(by_row, before, now)
        elif isinstance(now, tuple) and len(now) == len(rows):
            pairs = zip(rows.tolist(), before, now, strict=True)
            changed[field.name] = tuple(old if back else new for back, old, new in pairs)
    return dataclasses.replace(stream, **changed)


def poisoned_prefix(cell: Cell, prefix: float) -> Attacked:
    """One attack over the whole stream, thinned to the share ``prefix`` before, and ``rate`` after.

    One attack, not two: a backdoor's trigger is the same before and after, the worst case.
    """
    stream = honest(cell.stream, cell.events, cell.seed)
    rate = max(cell.rate, prefix)
    given = {**ATTACKS[cell.attack.removesuffix("+snap")], **PATTERNS[cell.pattern]}
    start = 0.0 if prefix else CLEAN_PREFIX
    made = inject(
        stream,
        given.pop("attack"),
        rate=rate,
        clean_prefix=start,
        snap=cell.snap,
        seed=cell.seed,
        **given,
    )
    n = len(made.poison)
    early = np.arange(n) < int(n * CLEAN_PREFIX)
    wanted = np.where(early, prefix, cell.rate) / rate
    keep = np.random.default_rng([cell.seed, 17]).random(n) < wanted
    back = made.poison & ~keep
    return dataclasses.replace(
        made, stream=_restored(made.stream, stream, back), poison=made.poison & keep
    )


def protection_rows(cell: Cell, prefix: float, contestants: Sequence[str], batch: int) -> list[Row]:
    """How each contestant does behind the prefix, with ``prefix`` of the prefix poisoned."""
    given = poisoned_prefix(cell, prefix)
    behind = slice(judged_from(len(given.poison)), None)
    poison = given.poison[behind]
    rows = []
    for name in contestants:
        made = judged(name, given.stream, batch)
        found = measures(made.score[behind], made.flag[behind], made.hold[behind], poison)
        rows.append(cell.columns | {"prefix": prefix, "contestant": name} | found)
    return rows


def protection_report(rows: Sequence[Row]) -> str:
    sections = [
        "Recall at 1 % false positives, mean over streams and seeds, by poison in the prefix that "
        "is learned from and poison behind it.\n"
    ]
    stages = [(str(before), str(after)) for before, after in STAGES]
    head = ("attack", *(f"{float(b):.0%} before, {float(a):.0%} after" for b, a in stages))
    for name in dict.fromkeys(str(row["contestant"]) for row in rows):
        own = of(rows, contestant=name)
        kinds = dict.fromkeys((str(row["attack"]), str(row["pattern"])) for row in own)
        body = [
            [f"{attack}, {pattern}"]
            + [_figure(of(own, attack=attack, pattern=pattern), *stage) for stage in stages]
            for attack, pattern in kinds
        ]
        body.append(["all", *(_figure(own, *stage) for stage in stages)])
        title = "This project" if name == GATE else name
        sections.append(f"### {title}\n\n{markdown(head, body)}")
        held = [_mean(own, "fp_hold", *stage) for stage in stages]
        sections.append("Clean events held: " + ", ".join(f"{h:.2%}" for h in held) + ".\n")
    return "\n".join(sections)


def _at(rows: Sequence[Row], before: str, after: str) -> list[Row]:
    return [
        row
        for row in rows
        if float(row["prefix"]) == float(before) and float(row["rate"]) == float(after)
    ]


def _figure(rows: Sequence[Row], before: str, after: str) -> str:
    return with_interval(by_cell(_at(rows, before, after), "recall_1pct").values(), 2)


def _mean(rows: Sequence[Row], name: str, before: str, after: str) -> float:
    values = [v for cell in by_cell(_at(rows, before, after), name).values() for v in cell]
    return float(np.mean(values)) if values else float("nan")
