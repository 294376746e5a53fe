"""From a judged batch to the incidents after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from monitor.core.decode import Decoded
from monitor.core.events import Parsed
from monitor.decide.assemble import Families, Judges, Reasons
from monitor.decide.incident_facts import facts
from monitor.decide.incident_state import IncidentBook
from monitor.decide.incidents import Folded, fold
from monitor.decide.judged import Judged, channels_of


def grouped(
    book: IncidentBook,
    judged: Judged,
    why: tuple[Reasons, Families],
    found: tuple[Parsed, Decoded],
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
        Its records, and what became of them.
    by
        Who judged, and the detectors' states.
    """
    (parsed, decoded), (judges, states) = found, by
    row = decoded.row

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
            fills=decoded.schema.layout.fills,
            surrogate=getattr(states.get("coherence"), "surrogate", None),
        ),
    )
