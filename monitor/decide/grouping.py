"""From a judged batch to the incidents after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from monitor.core.events import Parsed
from monitor.core.types import IntArray
from monitor.decide.assemble import Families, Judges, Reasons
from monitor.decide.incident_facts import facts
from monitor.decide.incident_state import IncidentBook
from monitor.decide.incidents import Folded, fold
from monitor.decide.judged import Judged, channels_of


def grouped(
    book: IncidentBook,
    judged: Judged,
    why: tuple[Reasons, Families],
    found: tuple[Parsed, IntArray],
    by: tuple[Judges, Mapping[str, Any]],
) -> Folded:
    """The incidents after a batch. Pure.

    Parameters
    ----------
    book
        The incidents before it.
    judged, why
        The batch, and what is said against its events.
    found
        Its records, and int64[n]: the place of each valid event among them.
    by
        Who judged, and the detectors' states.
    """
    (parsed, row), (judges, states) = found, by

    def subject_of(i: int) -> str | None:
        return parsed.events[int(np.searchsorted(parsed.row, row[i]))].subject

    return fold(
        book,
        facts(
            *(judged, *why),
            channels=channels_of(judges.detectors),
            promise=judges.policy.flag_at,
            seen=book.seen,
            subject_of=subject_of,
            surrogate=getattr(states.get("coherence"), "surrogate", None),
        ),
    )
