"""What a filter, and a cursor, mean in SQL. Pure."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_, select

from monitor.core.desk import HeldFilter
from monitor.core.errors import UsageError
from monitor.core.held import parse_key
from monitor.store import tables as t
from monitor.store.rows import short
from monitor.store.writing import at_places

_CURSOR = struct.Struct(">dIq")
MAX_KEYS = 20_000


def conditions(chosen: HeldFilter) -> list[ColumnElement[bool]]:
    """Conditions on the table held, all of which must hold.

    Raises
    ------
    UsageError
        For keys that are none, too many of them, or numbers that are none.
    """
    c, found = t.held.c, []
    if chosen.keys is not None:
        if len(chosen.keys) > MAX_KEYS:
            raise UsageError(f"At most {MAX_KEYS:,} keys at a time, not {len(chosen.keys):,}.")
        places = {parse_key(key) for key in chosen.keys}
        found.append(or_(false(), *at_places(t.held, sorted(places))))
    for name, limit, is_least in (
        ("since", chosen.since, True),
        ("until", chosen.until, False),
        ("risk_at_least", chosen.risk_at_least, True),
    ):
        if limit is not None:
            if math.isnan(limit):
                raise UsageError(f"{name} must be a number.")
            column = c.risk if name == "risk_at_least" else c.held_at
            found.append(column >= limit if is_least else column < limit)
    for name in ("source", "subject", "label", "incident"):
        value = getattr(chosen, name)
        if value is not None:
            found.append(c[name] == short(value))
    if chosen.status is not None:
        found.append(c.status == chosen.status.value)
    for kind, tagged in ((t.FAMILY, chosen.family), (t.DETECTOR, chosen.detector)):
        if tagged is not None:
            found.append(_tagged(kind, short(tagged)))
    if chosen.text:
        text = short(chosen.text)
        columns = (c.event_id, c.source, c.subject, c.label, c.reason)
        found.append(or_(*(column.icontains(text, autoescape=True) for column in columns)))
    return found


def _tagged(kind: int, name: str) -> ColumnElement[bool]:
    tag = t.tag.alias()  # of its own: what is asked may be about tags as well
    of = select(tag.c.part).where(tag.c.kind == kind, tag.c.name == name)
    return of.where(tag.c.part == t.held.c.part, tag.c.pos == t.held.c.pos).exists()


def is_open(chosen: HeldFilter) -> bool:
    """Whether a filter names no condition at all and so means everything."""
    return chosen == HeldFilter()


def encode_cursor(row: Any) -> str:
    """A place in the order of the latest first."""
    return base64.urlsafe_b64encode(_CURSOR.pack(row.held_at, row.part, row.pos)).decode()


def behind(cursor: str) -> ColumnElement[bool]:
    """The condition that a row comes behind ``cursor``. Raises UsageError."""
    try:
        at, part, pos = _CURSOR.unpack(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (binascii.Error, struct.error, ValueError):
        raise UsageError("This cursor is none that a search gave out.") from None
    c = t.held.c
    same = c.held_at == at
    return or_(
        c.held_at < at,
        and_(same, c.part < part),
        and_(same, c.part == part, c.pos < pos),
    )
