"""Dilution: what each channel finds alone, and what its presence costs the others.

Alone: the events ranked by that channel's p-value. Without: the gate with no budget for that
channel, the others sharing it. Cost of a channel in a cell: recall without it minus recall with
all of them; negative where it helps.
"""

from __future__ import annotations

import numpy as np

from loadtest.detection_cells import Cell, Judgement, Row, attacked, judge_by_gate, judged_from
from loadtest.detection_metrics import recall_at, share_of
from monitor.config.policy import Policy
from monitor.core.types import FloatArray


def channels_rows(cell: Cell, batch: int) -> list[Row]:
    given = attacked(cell)
    start = judged_from(len(given.poison))
    poison = given.poison[start:]
    full = judge_by_gate(given.stream, batch=batch)

    def row(kind: str, channel: str, score: FloatArray, made: Judgement | None) -> Row:
        return (
            cell.columns
            | {"kind": kind, "channel": channel, "recall_1pct": recall_at(score, poison, 0.01)}
            | {"recall_flag": np.nan if made is None else share_of(made.flag[start:], poison)}
        )

    rows = [row("all", "all", full.score[start:], full)]
    budget = Policy().budget
    for i, channel in enumerate(full.channels):
        alone = np.nan_to_num(-np.log10(np.maximum(full.p_value[start:, i], 1e-300)), nan=0.0)
        rows.append(row("alone", channel, alone, None))
        rest = {name: part for name, part in budget.items() if name != channel}
        if not any(rest.get(name, 0.0) > 0.0 for name in full.channels):
            continue
        less = judge_by_gate(given.stream, Policy(budget=rest), batch)
        rows.append(row("without", channel, less.score[start:], less))
    return rows
