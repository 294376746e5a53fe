"""What the console remembers of the counts: a sample every two seconds, for a quarter of an hour.

From it come rates by verdict and family, and the one sentence that says whether somebody attacks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SAMPLE_SECONDS = 2.0
KEPT = 450
WINDOW_SECONDS = 60.0
VERDICTS = ("accept", "flag", "quarantine", "invalid")
FEWEST_HELD = 10
FEWEST_FLAGGED = 30
MANY_TIMES = 3.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Counts since the start, at ``when`` (Unix seconds)."""

    when: float
    verdicts: Mapping[str, int]
    families: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Window:
    """What came in the last ``seconds``."""

    seconds: float
    verdicts: Mapping[str, int]
    families: Mapping[str, int]

    @property
    def judged(self) -> int:
        """Events that got a verdict other than invalid."""
        return sum(self.verdicts.get(word, 0) for word in VERDICTS[:3])

    def share(self, *words: str) -> float:
        """Share of the judged events with one of these verdicts."""
        return sum(self.verdicts.get(word, 0) for word in words) / max(1, self.judged)


@dataclass(frozen=True, slots=True)
class Mood:
    """The state in one word (``calm``, ``elevated``, ``attack`` or ``idle``) and two sentences."""

    word: str
    title: str
    text: str


class Live:
    """The latest samples. Used on the event loop only."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)

    def add(self, when: float, snapshot: Mapping[str, Any]) -> None:
        """Remember a status snapshot."""
        self.samples.append(
            Sample(when, dict(snapshot.get("verdicts") or {}), dict(snapshot.get("families") or {}))
        )

    def window(self, seconds: float = WINDOW_SECONDS) -> Window:
        """What came within the last ``seconds``, or since the first sample."""
        if not self.samples:
            return Window(0.0, {}, {})
        last = self.samples[-1]
        at = bisect_left(self.samples, last.when - seconds, key=lambda sample: sample.when)
        first = self.samples[at]
        return Window(
            last.when - first.when,
            _risen(first.verdicts, last.verdicts),
            _risen(first.families, last.families),
        )

    def rates(self, kind: str, names: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
        """Points (milliseconds, events a second) by name; ``kind`` is verdicts or families."""
        points: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        pairs = list(self.samples)
        for before, after in pairwise(pairs):
            seconds = max(0.1, after.when - before.when)
            risen = _risen(getattr(before, kind), getattr(after, kind))
            for name in names:
                points[name].append((after.when * 1000, round(risen.get(name, 0) / seconds, 2)))
        return points


def _risen(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    # A restart counts from nought again.
    return {name: max(0, n - before.get(name, 0)) for name, n in after.items()}


def mood(window: Window, snapshot: Mapping[str, Any], policy: Mapping[str, Any]) -> Mood:
    """Whether an attack is on: what was held and flagged lately against what the policy promises.

    Parameters
    ----------
    window
        The last minute.
    snapshot
        The status of now.
    policy
        The policy's document.
    """
    if snapshot.get("stopped"):
        return Mood("attack", "The gate has stopped", f"{snapshot['stopped']}. See its log.")
    if not snapshot.get("ready", True):
        return Mood("idle", "Starting", "Partitions are being assigned and restored.")
    if window.seconds and not window.judged:
        return Mood("idle", "No events are coming in", "Nothing was judged in the last minute.")
    held, flagged = window.verdicts.get("quarantine", 0), window.verdicts.get("flag", 0)
    held_times = window.share("quarantine") / policy.get("quarantine_at", 0.001)
    flag_times = window.share("flag", "quarantine") / policy.get("flag_at", 0.01)
    span = "the last minute" if window.seconds > 50 else f"the last {window.seconds:.0f} seconds"
    mostly = _mostly(window.families)
    if held >= FEWEST_HELD and held_times >= MANY_TIMES:
        text = f"{held:,} events held in {span}, {held_times:.1f} times what the policy promises."
        return Mood("attack", "Attack likely", f"{text}{mostly}")
    if held + flagged >= FEWEST_FLAGGED and flag_times >= MANY_TIMES:
        text = f"{held + flagged:,} events flagged or held in {span}, {flag_times:.1f} times what "
        return Mood("elevated", "More alarms than usual", f"{text}the policy promises.{mostly}")
    text = f"{held:,} held and {flagged:,} flagged in {span}: within what the policy promises."
    return Mood("calm", "All quiet", text)


def _mostly(families: Mapping[str, int]) -> str:
    total = sum(families.values())
    if not total:
        return ""
    name, most = max(families.items(), key=lambda item: item[1])
    return f" Mostly {name.replace('_', ' ')} ({100 * most / total:.0f}\u00a0%)."
