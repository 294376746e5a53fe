"""Stored models: how they are announced, and which of them learned something. Pure."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from monitor.core.blast import Checkpoint
from monitor.core.desk import ConflictError
from monitor.core.errors import UsageError

log = logging.getLogger(__name__)

VERSION = 1
MAX_NAME_CHARS = 256
MAX_PARTITIONS = 10_000
_LARGEST = 2**63 - 1
_END_OF_TIME = 253_402_300_800.0
"""The year 10000: a record from then would be the latest model for good."""

Row = tuple[bytes, bytes | None]


def checkpoint_row(checkpoint: Checkpoint) -> Row:
    """The record of a checkpoint, under its name.

    Examples
    --------
    >>> read_checkpoints([checkpoint_row(Checkpoint("m-1", 5.0, {0: 9}))])[0].offsets
    {0: 9}
    """
    offsets = {str(part): at for part, at in sorted(checkpoint.offsets.items())}
    record = {
        "version": VERSION,
        "name": checkpoint.name,
        "ts": checkpoint.ts,
        "offsets": offsets,
    }
    return checkpoint.name.encode(), orjson.dumps(record)


def checked(name: Any, ts: Any, offsets: Any) -> Checkpoint:
    """A checkpoint from plain values.

    Raises
    ------
    UsageError
        In a sentence that says which of them is wrong.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARS or "\0" in name:
        raise UsageError(f"name: must be a text of 1 to {MAX_NAME_CHARS} characters")
    if not name.strip():
        raise UsageError("name: must be more than spaces")
    if isinstance(ts, bool) or not isinstance(ts, int | float) or not math.isfinite(ts):
        raise UsageError("ts: must be a time in Unix seconds")
    if not 0 <= ts < _END_OF_TIME:
        raise UsageError(f"ts: must be Unix seconds of the years 1970 to 9999, not {ts:g}")
    if not isinstance(offsets, Mapping) or not 1 <= len(offsets) <= MAX_PARTITIONS:
        raise UsageError(
            'offsets: must say for each partition where the model would read on: {"0": 1234}, '
            f"of at most {MAX_PARTITIONS:,} partitions"
        )
    found = {}
    for part, at in offsets.items():
        text = str(part)
        good = isinstance(at, int) and not isinstance(at, bool) and 0 <= at <= _LARGEST
        plain = text.isascii() and text.isdigit() and len(text) < 10
        if not (plain and str(int(text)) == text and good):
            raise UsageError(
                f"offsets: {text[:40]!r} must be a partition, with the offset of the first event "
                "that the model has not learned"
            )
        found[int(text)] = at
    return Checkpoint(name, float(ts), found)


def refuse_changed(known: Checkpoint, said: Checkpoint, *, dated: bool = True) -> None:
    """Raise ConflictError where a name would come to mean another model.

    Parameters
    ----------
    known, said
        What holds, and what is announced under the same name.
    dated
        Whether the time was said; a time that only stands for now is no difference.
    """
    if known.offsets == said.offsets and not (dated and known.ts != said.ts):
        return
    places = sorted(known.offsets.items())
    shown = " ".join(f"{part}-{at}" for part, at in places[:20])
    more = f" and {len(places) - 20} more" if len(places) > 20 else ""
    raise ConflictError(
        f"The checkpoint {known.name!r} is known already, with the offsets {shown}{more} and the "
        f"time {known.ts:.17g}. A name stays with its model: choose another name."
    )


def refuse_beyond(said: Checkpoint, ends: Mapping[int, int], topic: str) -> None:
    """Raise UsageError where a model would have learned more than there is.

    Parameters
    ----------
    ends
        Where partitions end; nothing is held against one that is not in there.
    topic
        What they are partitions of.
    """
    for part, at in sorted(said.offsets.items()):
        end = ends.get(part)
        if end is not None and at > end:
            raise UsageError(
                f"offsets: {part}-{at} is beyond the end: partition {part} of {topic} ends at {end}"
            )


def read_checkpoints(rows: Iterable[Row]) -> list[Checkpoint]:
    """What records say; those that cannot be read are counted in the log and left out."""
    found, bad, first = [], 0, ""
    for key, value in rows:
        if value is None:
            continue
        try:
            said = orjson.loads(value)
            if not isinstance(said, dict):
                raise UsageError("is no object")
            version = said.get("version")
            if isinstance(version, bool) or not isinstance(version, int) or version < 1:
                raise UsageError("version: must be 1")
            if version > VERSION:
                raise UsageError("a later version wrote it")
            found.append(checked(said.get("name"), said.get("ts"), said.get("offsets")))
        except (orjson.JSONDecodeError, UsageError) as error:
            bad, first = bad + 1, first or f"{key[:80]!r}: {error}"
    if bad:
        log.warning("%d records of checkpoints cannot be used; the first, %s", bad, first)
    return found


def judged(
    checkpoints: Sequence[Checkpoint], firsts: Mapping[int, int], since: Mapping[int, int]
) -> dict[str, Any]:
    """Which checkpoint is the last one without the chosen events, and which have learned some.

    A model is clean when it has read none of them: in every partition that has some, its offset
    is at or before the first. One that says nothing of such a partition is ``unclear``.

    Parameters
    ----------
    checkpoints
        In any order.
    firsts
        By partition, the first chosen event's offset.
    since
        By partition, where the known events begin: chosen ones from before may be unknown, so a
        clean model is ``certain`` only where that is the beginning.

    Examples
    --------
    >>> models = [Checkpoint("a", 1.0, {0: 5}), Checkpoint("b", 2.0, {0: 9})]
    >>> found = judged(models, {0: 7}, {0: 0})
    >>> found["last_clean"]["name"], [one["name"] for one in found["tainted"]]
    ('a', ['b'])
    """
    clean, tainted, unclear = [], [], []
    for one in sorted(checkpoints, key=lambda c: (c.ts, c.name)):
        if any(one.offsets.get(part, 0) > first for part, first in firsts.items()):
            tainted.append(one)
        elif any(part not in one.offsets for part in firsts):
            unclear.append(one)
        else:
            clean.append(one)
    last = clean[-1] if clean else None
    return {
        "last_clean": None if last is None else as_json(last),
        "certain": not any(since.values()),
        "tainted": [as_json(one) for one in tainted],
        "unclear": [as_json(one) for one in unclear],
        "known": len(checkpoints),
    }


def as_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint in plain values."""
    offsets = {str(part): at for part, at in sorted(checkpoint.offsets.items())}
    return {"name": checkpoint.name, "ts": checkpoint.ts, "offsets": offsets}
