"""What a judged batch adds to its partition's audit chain."""

from __future__ import annotations

from typing import NamedTuple

from monitor.core.types import DecisionBatch
from monitor.state.audit import Chaining, Head, Judging, extend
from monitor.state.recovery import Stamp


class Added(NamedTuple):
    """Records, the chain they belong to, and where it stands then."""

    lines: tuple[bytes, ...]
    chain: str
    head: Head


def chained(by: Chaining | None, stamp: Stamp, decisions: DecisionBatch) -> Added:
    """The records for ``decisions``, which were made from the state of ``stamp``. Pure."""
    if by is None:
        return Added((), "", stamp.audit)
    judging = Judging(decisions.partition, decisions.policy_version, stamp.state)
    lines, head = extend(stamp.audit, by, judging, decisions.offset, decisions.records)
    return Added(lines, by.name(decisions.partition), head)
