"""Numbers and times as people read them."""

from __future__ import annotations

import math
import time
from typing import Any

MOST_CHARS = 400


def share(value: float) -> str:
    """A share in per cent, with as many digits as it takes.

    Examples
    --------
    >>> share(0.001), share(0.0137), share(0.25), share(0.0)
    ('0.1 %', '1.37 %', '25 %', '0 %')
    """
    return f"{100 * value:.3g} %"


def count(value: float) -> str:
    """A number with thousands apart.

    Examples
    --------
    >>> count(1234567), count(None or 0)
    ('1,234,567', '0')
    """
    return f"{value:,.0f}"


def short(value: float) -> str:
    """A number in few characters.

    Examples
    --------
    >>> short(950), short(12345), short(2_500_000), short(3.25)
    ('950', '12.3 k', '2.5 M', '3.2')
    """
    for size, unit in ((1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e6 if unit == ' M' else 1e3):.3g}{unit}"
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"


def clock(when: float | None) -> str:
    """Date and time in UTC."""
    if when is None:
        return "never"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))
    except (OverflowError, ValueError, OSError):
        return str(when)


def ago(when: float | None, now: float | None = None) -> str:
    """How long ago that was.

    Examples
    --------
    >>> ago(0.0, 30.0), ago(0.0, 150.0), ago(0.0, 7300.0), ago(0.0, 200000.0)
    ('30 s ago', '2 min ago', '2 h ago', '2 d ago')
    """
    if when is None:
        return "never"
    seconds = max(0.0, (time.time() if now is None else now) - when)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def plain(value: Any) -> str:
    """Any value of a document in one line, cut short.

    Examples
    --------
    >>> plain(3.2e-05), plain(12.5), plain(True), plain({"a": [1, None]})
    ('0.000032', '12.5', 'yes', '{a: [1, not set]}')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not set"
    if isinstance(value, dict):
        text = ", ".join(f"{name}: {plain(inner)}" for name, inner in value.items())
        text = f"{{{text}}}"
    elif isinstance(value, list | tuple):
        text = ", ".join(plain(inner) for inner in value)
        text = f"[{text}]"
    elif isinstance(value, float):
        text = _decimal(value)
    else:
        text = str(value)
    return text if len(text) <= MOST_CHARS else text[: MOST_CHARS - 1] + "…"


def _decimal(value: float) -> str:
    """Six digits, and no power of ten where a person would write none."""
    if not 1e-9 <= abs(value) < 1e15:
        return f"{value:.6g}"
    digits = max(0, 5 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def family(name: str) -> str:
    """A family's or detector's name in words."""
    return name.replace("_", " ")
