"""Tables of the benchmark, with bootstrap intervals, as markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.detection_cells import GATE
from loadtest.detection_metrics import NAN
from loadtest.detection_peers import PEERS
from monitor.core.types import FloatArray

Row = dict[str, Any]
Cell = tuple[str, ...]
DRAWS = 2_000
CELL = ("stream", "attack", "pattern", "rate", "events")
BEST_PEER = "best_peer"
TITLES = {
    GATE: "this project",
    **{name: peer.title for name, peer in PEERS.items()},
    BEST_PEER: "best peer, in hindsight for every cell",
}
RANKED = (("auc", "ROC AUC"), ("ap", "average precision"), ("recall_1pct", "recall at 1 %"))
DEPLOYED = (
    ("recall_flag", "recall, flagged"),
    ("recall_hold", "recall, held"),
    ("fp_flag", "clean flagged"),
    ("fp_hold", "clean held"),
    ("fp_flag_worst", "flagged, worst window"),
    ("fp_hold_worst", "held, worst window"),
)


def number(row: Row, name: str) -> float:
    value = row.get(name)
    return NAN if value in (None, "") else float(value)


def cell_of(row: Row) -> Cell:
    return tuple(str(row[name]) for name in CELL)


def by_cell(rows: Iterable[Row], name: str) -> dict[Cell, list[float]]:
    """The values of ``name``, seed by seed, of each cell; without those that are missing."""
    found: dict[Cell, list[float]] = defaultdict(list)
    for row in rows:
        value = number(row, name)
        if np.isfinite(value):
            found[cell_of(row)].append(value)
    return found


def interval(cells: Iterable[Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean over cells of the mean over seeds, and its 95 % bootstrap interval.

    Drawn in two levels: cells with replacement, then seeds with replacement within each cell.
    """
    groups = [np.asarray(values, dtype=np.float64) for values in cells if len(values)]
    if not groups:
        return NAN, NAN, NAN
    rng = np.random.default_rng(seed)
    means = np.stack([_means(values, rng) for values in groups])
    drawn = rng.integers(0, len(groups), (len(groups), DRAWS))
    resampled = means[drawn, np.arange(DRAWS)].mean(axis=0)
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(np.mean([values.mean() for values in groups])), float(low), float(high)


def _means(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    picks = rng.integers(0, len(values), (DRAWS, len(values)))
    return np.asarray(values[picks].mean(axis=1))


def shown(value: float, digits: int = 3) -> str:
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def with_interval(cells: Iterable[Sequence[float]], digits: int = 3) -> str:
    mean, low, high = interval(cells)
    if not np.isfinite(mean):
        return "–"
    return f"{shown(mean, digits)} ({shown(low, digits)}–{shown(high, digits)})"


def percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f} %" if np.isfinite(value) else "–"


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    return "\n".join(lines) + "\n"


def contestants(rows: Sequence[Row]) -> list[str]:
    present = {str(row["contestant"]) for row in rows}
    known = [name for name in TITLES if name in present]
    return known + sorted(present - set(known))


def of(rows: Iterable[Row], **wanted: str) -> list[Row]:
    return [row for row in rows if all(str(row[k]) == v for k, v in wanted.items())]


def best_peers(rows: Sequence[Row]) -> list[Row]:
    """For every attacked stream, the best of the peers in each figure of its own."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["contestant"] in PEERS:
            groups[str(row["key"])].append(row)
    return [
        group[0]
        | {"contestant": BEST_PEER}
        | {name: max(number(row, name) for row in group) for name, _ in RANKED}
        for group in groups.values()
    ]


def overall(rows: Sequence[Row]) -> str:
    body = []
    everyone = [*rows, *best_peers(rows)]
    for name in contestants(everyone):
        own = of(everyone, contestant=name)
        figures = [with_interval(by_cell(own, m).values()) for m, _ in RANKED]
        speed = float(np.nanmedian([number(row, "events_per_second") for row in own]))
        body.append([TITLES[name], *figures, "–" if name == BEST_PEER else f"{speed:,.0f}"])
    return markdown(("tool", *(title for _, title in RANKED), "events/CPU s"), body)


def by_attack(rows: Sequence[Row], measure: str) -> str:
    """One row an attack and pattern, one column a contestant, mean over streams and seeds."""
    everyone = [*rows, *best_peers(rows)]
    names = contestants(everyone)
    kinds = dict.fromkeys((str(row["attack"]), str(row["pattern"])) for row in rows)
    body = []
    for attack, pattern in kinds:
        mine = of(everyone, attack=attack, pattern=pattern)
        line = [f"{attack}, {pattern}"]
        for name in names:
            values = by_cell(of(mine, contestant=name), measure).values()
            line.append(with_interval(values, 2) if name == GATE else shown(interval(values)[0], 2))
        body.append(line)
    return markdown(("attack", *(_short(name) for name in names)), body)


def _short(name: str) -> str:
    return {GATE: "this project", BEST_PEER: "best peer"}.get(name, name)


def deployed(rows: Sequence[Row]) -> str:
    """The thresholds as deployed; worst windows are the largest of all streams."""
    body = []
    for name in contestants(rows):
        own = of(rows, contestant=name)
        if not any(np.isfinite(number(row, "recall_flag")) for row in own):
            continue
        line = [TITLES[name]]
        for measure, _ in DEPLOYED[:2]:
            line.append(with_interval(by_cell(own, measure).values(), 2))
        line += [percent(interval(by_cell(own, m).values())[0]) for m, _ in DEPLOYED[2:4]]
        line += [percent(max(number(row, m) for row in own)) for m, _ in DEPLOYED[4:]]
        delays = [number(row, "delay_events") for row in own]
        caught = [value for value in delays if np.isfinite(value)]
        line.append(f"{np.median(caught):,.0f}" if caught else "–")
        line.append(percent(1.0 - len(caught) / len(delays), 1))
        body.append(line)
    head = ("tool", *(title for _, title in DEPLOYED), "median delay, events", "never flagged")
    return markdown(head, body)


def shortfalls(rows: Sequence[Row], most: int = 10) -> str:
    """The cells where the best peer's AUC is the furthest above the gate's."""
    peers = by_cell(best_peers(rows), "auc")
    own = by_cell(of(rows, contestant=GATE), "auc")
    gaps = sorted(
        (float(np.mean(own[cell]) - np.mean(peers[cell])), cell) for cell in own if cell in peers
    )
    under = sum(gap < -0.02 for gap, _ in gaps)
    text = f"{under} of {len(gaps)} cells are more than .02 AUC under their best peer.\n\n"
    body = [
        [", ".join(cell[:3]), shown(float(np.mean(own[cell]))), shown(float(np.mean(peers[cell])))]
        for gap, cell in gaps[:most]
        if gap < -0.02
    ]
    return text + (markdown(("cell", "this project", "best peer"), body) if body else "")


Wanted = Callable[[Row], bool]
COLLUDING = ("burst",)
BACKDOORS = ("backdoor",)
PLAIN = ("flip", "targeted", "backdoor", "backdoor_jitter", "clean_label", "gradient", "frog")


def _kind(attacks: Sequence[str], patterns: Sequence[str]) -> Wanted:
    return lambda row: row["attack"] in attacks and row["pattern"] in patterns


GOALS: tuple[tuple[str, str, float, Wanted], ...] = (
    ("ROC AUC, all attacks", "auc", 0.97, _kind(PLAIN, ("burst", "stealth"))),
    ("average precision, all attacks", "ap", 0.80, _kind(PLAIN, ("burst", "stealth"))),
    ("recall at 1 %, all attacks", "recall_1pct", 0.80, _kind(PLAIN, ("burst", "stealth"))),
    ("backdoors, any source", "recall_1pct", 0.97, _kind(BACKDOORS, ("burst", "stealth"))),
    (
        "flips, targeted, gradient by 5 sources",
        "recall_1pct",
        0.97,
        _kind(("flip", "targeted", "gradient"), COLLUDING),
    ),
    ("clean-label by 5 sources", "recall_1pct", 0.90, _kind(("clean_label",), COLLUDING)),
    (
        "the same by 40 sources",
        "recall_1pct",
        0.70,
        _kind(("flip", "targeted", "gradient", "clean_label"), ("spread40",)),
    ),
    (
        "harder: jittered triggers",
        "recall_1pct",
        0.65,
        _kind(("backdoor_jitter", "backdoor_jitter+snap"), ("burst", "stealth")),
    ),
    (
        "harder: honest sources burst beside the attack",
        "recall_1pct",
        0.65,
        lambda row: row["pattern"] == "beside_bursts",
    ),
    (
        "harder: fresh sybils among honest newcomers",
        "recall_1pct",
        0.65,
        lambda row: row["pattern"] == "fresh",
    ),
    (
        "harder: values snapped to seen ones",
        "recall_1pct",
        0.65,
        lambda row: str(row["attack"]).endswith("+snap"),
    ),
)


def goals(rows: Sequence[Row]) -> str:
    body = []
    own = of(rows, contestant=GATE)
    for title, measure, target, wanted in GOALS:
        mean, low, high = interval(by_cell(filter(wanted, own), measure).values())
        if not np.isfinite(mean):
            continue
        met = "yes" if round(mean, 3) >= target else "no"
        measured = f"{shown(mean)} ({shown(low)}–{shown(high)})"
        body.append([title, f"≥ {shown(target, 2)}", measured, met])
    bursters = interval(by_cell(own, "hold_honest_burst").values())
    if np.isfinite(bursters[0]):
        found = f"{percent(bursters[0])} ({percent(bursters[1])}–{percent(bursters[2])})"
        met = "yes" if bursters[0] <= 0.002 else "no"
        body.append(["honest bursters held back", "≤ 0.20 %", found, met])
    return markdown(("goal", "wanted", "measured", "met"), body)


def kept_at_threshold(rows: Sequence[Row]) -> str:
    """Recall as deployed at 1 %, as a part of the recall at the true 1 % threshold."""
    body = []
    own = of(rows, contestant=GATE)
    for attack in dict.fromkeys(str(row["attack"]) for row in own):
        mine = of(own, attack=attack)
        true = interval(by_cell(mine, "recall_1pct").values())[0]
        flag = interval(by_cell(mine, "recall_flag").values())[0]
        held = interval(by_cell(mine, "recall_hold").values())[0]
        part = flag / true if true > 0 else NAN
        line = [attack, *(shown(v, 2) for v in (true, flag, held)), percent(part, 0)]
        body.append([*line, percent(interval(by_cell(mine, "fp_flag").values())[0])])
    head = ("attack", "recall at 1 %", "flagged", "held", "flagged / at 1 %", "clean flagged")
    return (
        "More than 100 % where more than the promised 1 % of the clean events is flagged.\n\n"
        + markdown(head, body)
    )


def grid_report(rows: Sequence[Row]) -> str:
    seeds = len({str(row["seed"]) for row in rows})
    cells = len({cell_of(row) for row in rows})
    streams = ", ".join(dict.fromkeys(str(row["stream"]) for row in rows))
    snapped = any(str(row["attack"]).endswith("+snap") for row in rows)
    warning = (
        ""
        if snapped
        else "Moved values are off their columns' grid here, which alone gives crude clean-label "
        "points and frogs away: `--snapped` measures careful attackers.\n"
    )
    sections = [
        f"Streams: {streams}. {cells} cells, {seeds} seed{'s' if seeds > 1 else ''} each; "
        "95 % bootstrap intervals over cells and seeds in brackets.\n" + warning,
        "### All cells\n\n" + overall(rows),
        "### Recall at 1 % false positives\n\n" + by_attack(rows, "recall_1pct"),
        "### ROC AUC\n\n" + by_attack(rows, "auc"),
        "### As deployed: flagged at 1 %, held at 0.1 %\n\n"
        "A peer's thresholds are the 99 % and 99.9 % quantiles of its scores on the clean "
        "prefix.\n\n" + deployed(rows),
    ]
    if of(rows, contestant=GATE):
        sections += [
            "### Goals\n\n" + goals(rows),
            "### What the deployed threshold keeps\n\n" + kept_at_threshold(rows),
        ]
        if best_peers(rows):
            sections.append("### Cells under the best peer\n\n" + shortfalls(rows))
    return "\n".join(sections)


def save(path: Path, sections: Sequence[str]) -> None:
    path.write_text("\n".join(sections), encoding="utf-8")
