"""``python -m monitor run`` with one thing changed: a detector that fails when it is asked to.

No setting makes a shipped detector fail, and none should. Everything else is the real service.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from monitor.cli import wiring
from monitor.cli.app import main
from monitor.detectors import default_detectors
from monitor.detectors.base import Scores

FAULT_WEIGHT = 5000.0
"""An event of this weight makes the detector fail on its micro-batch."""
FAILS = "novelty"


class Failing:
    """A detector that raises while it scores a batch with the marked event."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def score(self, view: Any, batch: Any) -> Scores:
        if (batch.weight == FAULT_WEIGHT).any():
            raise RuntimeError("asked to fail")
        return self._inner.score(view, batch)


def detectors(extra: Sequence[str] = ()) -> tuple[Any, ...]:
    """The default ones, the one among them wrapped."""
    return tuple(
        Failing(detector) if detector.name == FAILS else detector
        for detector in default_detectors(extra)
    )


if __name__ == "__main__":
    wiring.default_detectors = detectors
    main()
