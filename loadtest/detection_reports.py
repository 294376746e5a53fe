"""Tables of the other modes: calibration, damage, drift, channels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from loadtest.detection_cells import GATE
from loadtest.detection_clean import PROMISES
from loadtest.detection_damage import ACCEPTED
from loadtest.detection_metrics import NAN
from loadtest.detection_view import (
    DRAWS,
    Row,
    by_cell,
    interval,
    markdown,
    number,
    of,
    percent,
    shown,
    with_interval,
)
from monitor.core.types import FloatArray

NOTICEABLE = 0.005
ALL = "all learners"
NOT_GATES = ("clean", "poisoned", "oracle")


def values(rows: Iterable[Row], name: str) -> list[float]:
    found = [number(row, name) for row in rows]
    return [value for value in found if np.isfinite(value)]


def mean(rows: Iterable[Row], name: str) -> float:
    found = values(rows, name)
    return float(np.mean(found)) if found else NAN


def names(rows: Iterable[Row], column: str) -> list[str]:
    return list(dict.fromkeys(str(row[column]) for row in rows))


def calibration_report(rows: Sequence[Row]) -> str:
    head = ["stream", *(f"{percent(p)}: {w}" for p in PROMISES for w in ("all", "worst"))]
    sections = [
        "Achieved share of clean events after the warm-up, mean over seeds, and the largest share "
        "in any 5,000 consecutive events of any seed; * where independent alarms would stay under "
        "it 19 times in 20.\n"
    ]
    everything = of(rows, channel="all")
    for gated, title in (("True", "Only accepted events are learned"), ("False", "No gating")):
        own = of(everything, gated=gated)
        if own:
            body = [_calibrated(stream, of(own, stream=stream)) for stream in names(own, "stream")]
            sections.append(f"### {title}\n\n{markdown(head, body)}\n{_kept(own)}")
    sections.append("### By channel, gated, mean over streams and seeds\n")
    gated_rows = of(rows, gated="True")
    body = []
    for channel in names(gated_rows, "channel"):
        mine = of(gated_rows, channel=channel)
        line = [channel]
        for p in PROMISES:
            cells = defaultdict(list)
            for row in (r for r in mine if number(r, "promised") == p):
                if np.isfinite(number(row, "achieved")):
                    cells[str(row["stream"])].append(100 * number(row, "achieved"))
            line.append(with_interval(cells.values()))
        body.append(line)
    sections.append(markdown(("channel", *(f"promised {percent(p)}" for p in PROMISES)), body))
    return "\n".join(sections)


def _calibrated(stream: str, rows: Sequence[Row]) -> list[str]:
    line = [stream]
    for p in PROMISES:
        mine = [row for row in rows if number(row, "promised") == p]
        worst = max(values(mine, "worst"), default=NAN)
        lucky = worst <= mean(mine, "worst_by_chance")
        line += [percent(mean(mine, "achieved"), 3), percent(worst) + ("" if lucky else " *")]
    return line


def _kept(rows: Sequence[Row]) -> str:
    """How many streams keep the promise within ±30 %, and under twice it in the worst window."""
    parts = []
    for p in PROMISES:
        mine = [row for row in rows if number(row, "promised") == p]
        streams = names(mine, "stream")
        overall = [mean(of(mine, stream=s), "achieved") / p for s in streams]
        worst = [max(values(of(mine, stream=s), "worst"), default=NAN) / p for s in streams]
        near = sum(0.7 <= ratio <= 1.3 for ratio in overall)
        under = sum(ratio < 2.0 for ratio in worst)
        parts.append(f"at {percent(p)} {near} within ±30 % and {under} under 2× at worst")
    return f"Of {len(names(rows, 'stream'))} streams: " + "; ".join(parts) + ".\n"


def _recovered(rows: Sequence[Row], training: str) -> tuple[float, float, float]:
    """Share of the lost accuracy that training behind a gate gives back, and its interval.

    A ratio of sums over streams and seeds, as single cells lose too little to divide by.
    """
    pairs = []
    for key in names(rows, "key"):
        for learner in names(of(rows, key=key), "learner"):
            mine = {
                str(row["training"]): number(row, "accuracy")
                for row in of(rows, key=key, learner=learner)
            }
            if {"clean", "poisoned", training} <= set(mine):
                lost = mine["clean"] - mine["poisoned"]
                pairs.append((lost, mine[training] - mine["poisoned"]))
    table: FloatArray = np.array(pairs).reshape(-1, 2)
    if not len(table) or table[:, 0].mean() < NOTICEABLE:
        return NAN, NAN, NAN
    rng = np.random.default_rng(0)
    drawn = table[rng.integers(0, len(table), (DRAWS, len(table)))].sum(axis=1)
    ratios = drawn[:, 1] / np.where(np.abs(drawn[:, 0]) > 1e-9, drawn[:, 0], np.nan)
    low, high = np.nanquantile(ratios, (0.025, 0.975))
    total = table.sum(axis=0)
    return float(total[1] / total[0]), float(low), float(high)


def _trainings(rows: Sequence[Row]) -> list[str]:
    """Gates first, in order of appearance, the oracle last."""
    gates = [name for name in names(rows, "training") if name not in NOT_GATES]
    return [*gates, "oracle"]


def _gate_title(name: str) -> str:
    return {GATE: "this project", ACCEPTED: "this project, flagged withheld too"}.get(name, name)


def damage_report(rows: Sequence[Row]) -> str:
    gates = _trainings(rows)
    kinds = dict.fromkeys((str(r["attack"]), str(r["pattern"]), str(r["learner"])) for r in rows)
    body, success = [], []
    pooled = [(attack, pattern, ALL) for attack, pattern in dict.fromkeys(k[:2] for k in kinds)]
    for attack, pattern, learner in sorted([*kinds, *pooled]):
        mine = of(rows, attack=attack, pattern=pattern)
        if learner != ALL:
            mine = of(mine, learner=learner)
        clean, poisoned = (mean(of(mine, training=t), "accuracy") for t in ("clean", "poisoned"))
        line = [f"{attack}, {pattern}, {learner}", shown(clean), shown(poisoned)]
        for name in gates:
            part, low, high = _recovered(mine, name)
            text = percent(part, 0)
            if name == GATE and np.isfinite(part):
                text += f" ({100 * low:.0f}–{100 * high:.0f})"
            line.append(text)
        body.append(line)
        if attack.startswith("backdoor") and learner != ALL:
            trained = ["clean", "poisoned", *gates]
            found = [_success(of(mine, training=name), name == GATE) for name in trained]
            success.append([f"{attack}, {pattern}, {learner}", *found])
    titles = [_gate_title(name) for name in gates]
    rates = ", ".join(percent(float(rate), 0) for rate in names(rows, "rate"))
    sections = [
        f"{rates} poison. Prequential accuracy on the clean events behind the prefix; share of the "
        "lost accuracy recovered, over streams and seeds together, – where less than half a point "
        "is lost.\n",
        "### Accuracy recovered\n",
        markdown(("attack, learner", "clean", "poisoned", *titles), body),
    ]
    if success:
        sections += [
            "### Success of a planted backdoor\n",
            markdown(("attack, learner", "clean", "poisoned", *titles), success),
        ]
    sections += ["### What the gates let through\n", _passed(rows, gates)]
    return "\n".join(sections)


def _success(rows: Sequence[Row], full: bool) -> str:
    cells = by_cell(rows, "success").values()
    return with_interval(cells, 2) if full else shown(interval(cells)[0], 2)


def _passed(rows: Sequence[Row], gates: Sequence[str]) -> str:
    body = []
    for name in gates:
        mine = of(rows, training=name)
        let, withheld = mean(mine, "poison_passed"), mean(mine, "clean_withheld")
        body.append([_gate_title(name), percent(let, 1), percent(withheld)])
    return markdown(("gate", "poison let through", "clean events withheld"), body)


def drift_report(rows: Sequence[Row]) -> str:
    body, partial = [], []
    for stream in names(rows, "stream"):
        mine = of(rows, stream=stream)
        body.append(
            [
                stream,
                percent(mean(mine, "flagged")),
                percent(mean(mine, "held"), 3),
                percent(max(values(mine, "held_worst"), default=NAN)),
                percent(max(values(mine, "held_worst_source"), default=NAN), 1),
                shown(mean(mine, "campaigns_per_10k"), 2),
            ]
        )
        if mean(mine, "shifted") > 0:
            after = values(mine, "declared_after")
            partial.append(
                [
                    stream,
                    f"{mean(mine, 'shifted'):,.0f}",
                    percent(mean(mine, "shifted_flagged"), 1),
                    f"{max(after):,.0f}" if len(after) == len(mine) else "not always",
                ]
            )
    head = (
        "stream",
        "flagged",
        "held",
        "held, worst window",
        "held, worst source",
        "campaigns / 10,000",
    )
    text = (
        "Unpoisoned streams that drift. Wanted: at most 0.1 % held, no campaign. A campaign is an "
        "incident named in decision records other than a drift.\n\n" + markdown(head, body)
    )
    if partial:
        text += (
            "\nThe same shift in what 2 % of the sources send; wanted: declared (here: the fifth "
            "of its events flagged) within 1,000 of its events.\n\n"
            + markdown(("stream", "events of the shift", "flagged", "events before"), partial)
        )
    return text


def channels_report(rows: Sequence[Row]) -> str:
    channels = names(of(rows, kind="alone"), "channel")
    kinds = dict.fromkeys((str(row["attack"]), str(row["pattern"])) for row in rows)
    alone = []
    for attack, pattern in kinds:
        mine = of(rows, attack=attack, pattern=pattern)
        line = [f"{attack}, {pattern}"]
        for channel in channels:
            own = by_cell(of(mine, kind="alone", channel=channel), "recall_1pct")
            line.append(shown(interval(own.values())[0], 2))
        line.append(shown(interval(by_cell(of(mine, kind="all"), "recall_1pct").values())[0], 2))
        alone.append(line)
    return "\n".join(
        [
            "### Recall at 1 % of each channel alone, and of all\n",
            markdown(("attack", *channels, "all"), alone),
            "### What a channel costs the others\n",
            "Recall at 1 % without the channel minus recall with all, over the cells where it is "
            "not itself the best single channel; wanted: at most .02.\n",
            costs(rows, channels),
        ]
    )


def costs(rows: Sequence[Row], channels: Sequence[str]) -> str:
    best: dict[str, str] = {}
    for key in names(rows, "key"):
        alone = of(rows, kind="alone", key=key)
        best[key] = str(max(alone, key=lambda row: number(row, "recall_1pct"))["channel"])
    full = {str(row["key"]): number(row, "recall_1pct") for row in of(rows, kind="all")}
    body = []
    for channel in channels:
        costly = [
            row | {"cost": number(row, "recall_1pct") - full[str(row["key"])]}
            for row in of(rows, kind="without", channel=channel)
            if best[str(row["key"])] != channel
        ]
        if not costly:
            continue
        by_attack = {a: mean(of(costly, attack=a), "cost") for a in names(costly, "attack")}
        worst = max(by_attack, key=lambda attack: by_attack[attack])
        line = [channel, with_interval(by_cell(costly, "cost").values())]
        body.append([*line, f"{shown(by_attack[worst])} ({worst})"])
    return markdown(("channel", "mean cost", "largest by attack"), body)
