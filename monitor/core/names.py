"""Names that stand twice in one JSON object.

Parsers do not agree on which of two values counts. Accepted events leave byte-identical, so a
record with two labels could show one to the monitor and the other to a learner whose parser takes
the first. RFC 8259 asks for unique names; records without them are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from monitor.core.events import TAKEN, Event

# One match always runs to the end of a string, closed or not, so the scan is linear.
STRINGS = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
REQUIRED_NAMES = 5
_NESTING = (dict, list)


def ambiguous(
    values: Sequence[bytes], events: Sequence[Event], joined: bytes, taken: int = 0
) -> list[int]:
    """Which of the decoded records hold a name twice in one of their objects.

    ``joined`` is all of ``values`` in a row; ``taken`` is how many names the features had of events
    that have them no more.

    A record that has room for as many names as the event has holds each of them once. Only others
    (unusual spacing or texts, fields that are not decoded) are parsed once more.
    """
    # Several times as fast as to count bytes in bytes, where there are many.
    colons = int(np.count_nonzero(np.frombuffer(joined, dtype=np.uint8) == ord(":")))
    least = REQUIRED_NAMES + taken
    bare = not taken or all(event.features is TAKEN for event in events)
    if colons == least * len(events) and bare:
        return []  # nothing optional: the names are those that must be there
    return [
        i
        for i, (value, event) in enumerate(zip(values, events, strict=True))
        if value.count(b":") != (names := _decoded_names(event, taken))
        and is_ambiguous(value, names)
    ]


def _decoded_names(event: Event, taken: int) -> int:
    count = REQUIRED_NAMES + (taken if event.features is TAKEN else 0)
    for value in (event.features, event.subject, event.prediction, event.gradient, event.weight):
        if type(value) is dict:
            count += len(value)
    optional = (event.subject, event.prediction, event.gradient, event.weight)
    return count + 4 - optional.count(None)


def is_ambiguous(value: bytes, names: int = 0) -> bool:
    """Whether one of the objects in a JSON text holds a name twice; ``names`` are known ones.

    Examples
    --------
    >>> is_ambiguous(b'{"a":1,"b":{"a":":"}}'), is_ambiguous(b'{"a":1,"\\\\u0061":2}')
    (False, True)
    """
    room = _room(value)
    if room == names:
        return False
    try:
        names = _names(orjson.loads(value))
    except (ValueError, RecursionError):
        return False  # not JSON at all, or too deep, which is said elsewhere
    return room != names and STRINGS.sub(b"", value).count(b":") != names


def _room(value: bytes) -> int:
    """At least as many as there are names: quotes before a colon, or before white space."""
    count = value.count
    return count(b'":') + count(b'" ') + count(b'"\n') + count(b'"\t') + count(b'"\r')


def _names(tree: Any) -> int:
    """Names in all the objects of decoded JSON."""
    kind = type(tree)
    if kind is dict:
        return len(tree) + sum([_names(v) for v in tree.values() if type(v) in _NESTING])
    return sum([_names(v) for v in tree if type(v) in _NESTING]) if kind is list else 0


def first_twice(value: bytes) -> str | None:
    """The name that stands twice in one object, None when there is no such."""
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                found.append(name)
            seen.add(name)

    json.loads(value, object_pairs_hook=look)
    return found[0] if found else None
