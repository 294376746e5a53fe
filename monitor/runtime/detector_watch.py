"""Tells the operator once when a detector begins to fail, and once when it works again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from monitor.core.ports import CommitUnit


class DetectorWatch:
    """Observer of a :class:`~monitor.runtime.service.Service`.

    An episode begins with the first committed batch on which a detector fails and ends with the
    first on which it does not, each partition for itself: so what is told depends on the
    input alone.

    Parameters
    ----------
    tell
        Receives one sentence at the beginning and one at the end of an episode.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._failing: dict[tuple[int, str], int] = {}

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Look at a committed micro-batch; ``seconds`` are of no interest."""
        for part in unit.parts:
            partition, decisions = part.raw.partition, part.decisions
            failed = {failure.detector: failure for failure in decisions.failures}
            for name, failure in failed.items():
                key = (partition, name)
                if key not in self._failing:
                    self._tell(
                        f"Detector {name} fails in {failure.step} on partition {partition} from "
                        f"offset {int(part.raw.offset[0])} on: {failure.error}. Its batches are "
                        "decided as gate.on_detector_error says."
                    )
                self._failing[key] = self._failing.get(key, 0) + len(decisions)
            over = [k for k in self._failing if k[0] == partition and k[1] not in failed]
            for key in over:
                self._tell(
                    f"Detector {key[1]} works again on partition {partition} from offset "
                    f"{int(part.raw.offset[0])} on; it had failed on {self._failing.pop(key)} "
                    "records."
                )
