"""A reason's evidence as panels: contributions by feature, classes, and what remains.

Each detector has figures of its own. Those of the kinds below become bars, whatever else there is
is shown by name, so that a new detector's evidence is shown as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monitor.console import words

MOST_ROWS = 12
FEATURES = "Contribution by feature"
CLASSES = "What comparable events say"
VALUES = "The values it is about"
# Maps by column. What detectors call ``features`` and ``values`` are the event's own values.
TITLES = {
    "shift": "How far its source lies from others",
    "moved": "How far its class has moved",
    "features": VALUES,
    "values": VALUES,
    "class_distribution": CLASSES,
}
# Label and share of what the event says, and of what events like it say.
PAIRS = (
    ("given", "given_probability", "expected", "expected_probability"),
    ("label", "own_share", "other", "other_share"),
)


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows: name, length of its bar, and how the number reads.

    Columns' own ``values`` get no bars: each is in a unit of its own, so none is the larger.
    """

    title: str
    rows: tuple[tuple[str, float, str], ...]
    values: bool = False


@dataclass(slots=True)
class Shown:
    """What is shown of a reason's evidence."""

    panels: list[Panel] = field(default_factory=list)
    rest: list[tuple[str, Any]] = field(default_factory=list)


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def numbers(value: Any) -> dict[str, float]:
    """The finite numbers of a mapping by name; empty for anything else."""
    if not isinstance(value, Mapping):
        return {}
    found = {str(name): number(inner) for name, inner in value.items()}
    return {name: n for name, n in found.items() if n is not None}


def read(evidence: Mapping[str, Any]) -> Shown:
    """Panels and the rest of one reason's evidence.

    Examples
    --------
    >>> found = read({"given": "a", "given_probability": 0.02, "expected": "b",
    ...               "expected_probability": 0.93, "nats": 3.5})
    >>> found.panels[0].rows
    (('b', 0.93, '93 %'), ('a', 0.02, '2 %'))
    >>> found.rest
    [('nats', 3.5)]
    """
    left = dict(evidence)
    shown = Shown()
    for take in (_features, _columns, _classes):
        panel = take(left)
        if panel is not None:
            shown.panels.append(panel)
    for name, value in left.items():
        found = numbers(value)
        if found and (len(found) > 1 or str(name) in TITLES):
            title = TITLES.get(str(name), words.family(str(name)).capitalize())
            shown.panels.append(_panel(title, found, shares=title == CLASSES))
        else:
            shown.rest.append((words.family(str(name)), value))
    return shown


def _panel(title: str, found: Mapping[str, float], *, shares: bool = False) -> Panel:
    if title == VALUES:
        named = list(found.items())[:MOST_ROWS]
        return Panel(title, tuple((name, n, words.plain(n)) for name, n in named), values=True)
    rows = sorted(found.items(), key=lambda item: -abs(item[1]))[:MOST_ROWS]
    return Panel(
        title, tuple((name, n, words.share(n) if shares else f"{n:.4g}") for name, n in rows)
    )


def _features(left: dict[str, Any]) -> Panel | None:
    """``features: [{name, deviations, value}]``, ``columns: [{name, value, expected, …}]``."""
    for key in ("features", "columns"):
        listed = left.get(key)
        if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
            continue
        rows = []
        for one in listed[:MOST_ROWS]:
            off, value = _deviations(one), number(one.get("value"))
            if off is not None:
                said = f"{off:+.1f} deviations" + ("" if value is None else f", value {value:.4g}")
                rows.append((str(one.get("name")), off, said))
        if rows:
            del left[key]
            return Panel(FEATURES, tuple(rows))
    return None


def _deviations(one: Mapping[str, Any]) -> float | None:
    """How far a column is off, in what it usually is off by."""
    value, expected, usual = (number(one.get(n)) for n in ("value", "expected", "usual_error"))
    if value is not None and expected is not None and usual:
        return (value - expected) / usual
    return number(one.get("deviations"))


def _columns(left: dict[str, Any]) -> Panel | None:
    """``columns: [name], values: [number]``."""
    names, values = left.get("columns"), left.get("values")
    if not isinstance(names, list) or not isinstance(values, list) or len(names) != len(values):
        return None
    found = {
        str(name): n
        for name, value in zip(names, values, strict=True)
        if (n := number(value)) is not None
    }
    if not found:
        return None
    del left["columns"], left["values"]
    return _panel(VALUES, found)


def _classes(left: dict[str, Any]) -> Panel | None:
    """What the label is, and what it would be by events like it, each with its share."""
    for mine, my_share, other, other_share in PAIRS:
        shares = {
            str(left.get(name)): share
            for name, key in ((mine, my_share), (other, other_share))
            if name in left and (share := number(left.get(key))) is not None
        }
        if shares:
            for key in (mine, my_share, other, other_share):
                left.pop(key, None)
            return _panel(CLASSES, shares, shares=True)
    return None
