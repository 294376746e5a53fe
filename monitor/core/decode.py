"""From the bytes of records to columns of numbers, and a code for every record that is refused.

Good records take one typed msgspec call each and are then handled as columns. Whatever that call
refuses goes to :mod:`monitor.core.diagnose`, so that ordinary traffic does not pay for precise
error messages. A bad record costs only itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from monitor.core.diagnose import depth, diagnose
from monitor.core.errors import RejectCode
from monitor.core.events import (
    Event,
    Packed,
    Parsed,
    Partial,
    commonest_length,
    event_decoder,
)
from monitor.core.features import Bad, Layout
from monitor.core.hashing import hash_optional, hash_repeated, hash_rows, hash_texts
from monitor.core.label_room import admit
from monitor.core.labels import LabelTable, own_prediction
from monitor.core.limits import Limits
from monitor.core.names import ambiguous
from monitor.core.numbers import crowded, parse_json
from monitor.core.packing import Packing
from monitor.core.schema import Schema
from monitor.core.types import ByteArray, EventBatch, FloatArray, Int32Array, IntArray, RawBatch

__all__ = ["Decoded", "Decoder", "Parsed"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The valid events of a batch in columns, and what was refused.

    Attributes
    ----------
    events
        m valid events.
    row
        int64[m], increasing: the row of each in the raw batch.
    reject
        uint8[n], values of ``RejectCode``, 0 for the valid ones.
    detail
        For each refused row, one sentence.
    labels
        The label table, with the new labels that were taken up.
    schema
        The schema, with ``gradient_dim`` fixed where gradients first came.
    """

    events: EventBatch
    row: IntArray
    reject: ByteArray
    detail: dict[int, str]
    labels: LabelTable
    schema: Schema


class Decoder:
    """Decodes batches under fixed limits. Holds no state between batches.

    Examples
    --------
    >>> from monitor.core.types import RawBatch
    >>> good = b'{"id":"a","ts":1.5,"source":"s","label":true,"features":[1,2]}'
    >>> decoder = Decoder()
    >>> parsed = decoder.parse(RawBatch.of([good, b'{"id":7}']))
    >>> parsed.reject.tolist(), parsed.detail[1]
    ([0, 7], 'id is a number, 7; expected a text')
    >>> schema = Schema.learn(parsed)
    >>> decoded = decoder.columns(parsed, schema, LabelTable())
    >>> decoded.events.x.tolist(), decoded.events.time_ns.tolist(), decoded.labels.names
    ([[1.0, 2.0]], [1500000000], ('true',))
    """

    def __init__(self, limits: Limits | None = None, hash_seed: int = 0) -> None:
        self.limits = limits or Limits()
        self.hash_seed = hash_seed
        decoder = event_decoder(self.limits)
        self._decode, self._type = decoder.decode, decoder.type

    def parse(self, raw: RawBatch, layout: Layout | None = None) -> Parsed:
        """Typed decoding of every record, before any schema.

        With a ``layout`` the events' numbers are packed as its columns on the way, for
        :meth:`columns` with a schema of that layout, where nothing else needs their features.

        Never raises for what a record contains: each refused row has a code and a sentence.
        """
        packing = None if layout is None else layout.packing
        joined = self._joined(raw.values)
        events, rows, bad, packed = self._decode_all(raw.values, joined, packing)
        stamps = [event.ts for event in events]
        dated = datetime in set(map(type, stamps))
        # How many names each event had in the object that was packed.
        taken = 0 if packing is None or packing.array else len(packing.names)
        hidden = self._hidden_faults(
            *(raw.values, events, rows, None if bad else joined), dated=dated, taken=taken
        )
        if hidden:
            kept = [i for i, row in enumerate(rows) if row not in hidden]
            events, rows = [events[i] for i in kept], [rows[i] for i in kept]
            stamps = [stamps[i] for i in kept]
            packed = None if packed is None else packed.rows(kept)
            bad = sorted(hidden.union(bad))
        reject = np.zeros(len(raw), dtype=np.uint8)
        detail: dict[int, str] = {}
        partial: dict[int, Partial] = {}
        for row in bad:
            code, detail[row], partial[row] = diagnose(raw.values[row], self.limits)
            reject[row] = code
        row_index = np.array(rows, dtype=np.int64) if bad else np.arange(len(raw))
        time = time_ns(stamps, dated=dated)
        return Parsed(raw.offset, reject, detail, row_index, events, time, partial, packed)

    def _joined(self, values: Sequence[bytes]) -> bytes | None:
        """All records in a row; None where one is too long, which is not looked at, not even so."""
        within = max(map(len, values), default=0) <= self.limits.max_message_bytes
        return b"".join(values) if within else None

    def _decode_all(
        self, values: Sequence[bytes], joined: bytes | None, packing: Packing | None
    ) -> tuple[list[Event], Sequence[int], list[int], Packed | None]:
        """Events, their rows, the rows the typed decoder refused, and what was packed."""
        decode, most = self._decode, self.limits.max_message_bytes
        within = joined is not None
        fit = values if within else [v if len(v) <= most else b"" for v in values]
        slow = crowded(fit, joined)
        if not slow and within:
            try:
                if packing is None:
                    return [decode(value) for value in values], range(len(values)), [], None
                events, packed = packing.decoded(decode, values)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                pass  # one of them is bad, and it takes another round to say which
            else:
                return events, range(len(values)), [], packed
        events, bad = [], []
        for row, value in enumerate(values):
            if len(value) > most:
                bad.append(row)
                continue
            try:
                events.append(decode(value) if row not in slow else self._convert(value))
            except (msgspec.MsgspecError, ValueError, RecursionError):
                bad.append(row)
        refused = set(bad)
        kept = [row for row in range(len(values)) if row not in refused]
        return events, kept, bad, None if packing is None else packing.packed(events)

    def _convert(self, value: bytes) -> Event:
        """What ``decode`` gives, by way of plain values."""
        if depth(value) > self.limits.max_depth:
            raise ValueError("too deep")
        return msgspec.convert(parse_json(value), self._type)

    def _hidden_faults(
        self,
        values: Sequence[bytes],
        events: Sequence[Event],
        rows: Sequence[int],
        joined: bytes | None,
        *,
        dated: bool,
        taken: int,
    ) -> set[int]:
        """Rows of decoded events with a fault where the typed decoder does not look.

        That is: bytes that are not UTF-8 in a field it skips, deep nesting in one, names that stand
        twice in an object, and RFC 3339 times out of range.
        """
        picked = values if len(rows) == len(values) else [values[row] for row in rows]
        joined = b"".join(picked) if joined is None else joined
        found = self._byte_faults(rows, picked, joined)
        if found:
            sound = [i for i, row in enumerate(rows) if row not in found]
            picked, events = [picked[i] for i in sound], [events[i] for i in sound]
            rows, joined = [rows[i] for i in sound], b"".join(picked)
        found.update(rows[i] for i in ambiguous(picked, events, joined, taken))
        if not dated:
            return found
        first, last = self.limits.min_ts_seconds, self.limits.max_ts_seconds
        found.update(
            row
            for row, event in zip(rows, events, strict=True)
            if isinstance(ts := event.ts, datetime) and not first <= ts.timestamp() <= last
        )
        return found

    def _byte_faults(self, rows: Sequence[int], picked: Sequence[bytes], joined: bytes) -> set[int]:
        """Those of ``rows`` whose bytes are not UTF-8, or nested too deeply."""
        found: set[int] = set()
        if not joined.isascii():
            found.update(row for row, v in zip(rows, picked, strict=True) if not _is_utf8(v))
        # Every event opens at least two brackets, so the total bounds what one record can have.
        most = self.limits.max_depth
        if _brackets(joined) - 2 * (len(picked) - 1) > most:
            found.update(
                row
                for row, v in zip(rows, picked, strict=True)
                if v.count(b"{") + v.count(b"[") > most and depth(v) > most
            )
        return found

    def columns(self, parsed: Parsed, schema: Schema, labels: LabelTable) -> Decoded:
        """The events that fit the schema, in columns.

        Parameters
        ----------
        parsed
            What :meth:`parse` gave.
        schema, labels
            Of the stream so far; neither is changed, grown ones are returned.
        """
        events = parsed.events
        if parsed.packed is None:
            x, bad = schema.encode([event.features for event in events])
        else:
            x, bad = schema.layout.completed(parsed.packed, events)
        gradient, schema = self._gradients(events, schema, bad)
        keep = _without(len(events), bad)
        said = [events[i].label for i in keep] if bad else [event.label for event in events]
        y = labels.find(said)
        if (y < 0).any():
            who = hash_repeated([events[i].source for i in keep], self.hash_seed)
            labels, y = admit(labels, said, who, self.limits.max_labels)
        if (y < 0).any():
            self._refuse_labels(y, keep, bad, len(labels))
            keep, y = _without(len(events), bad), y[y >= 0]
        time, row = parsed.time_ns, parsed.row
        reject, detail = parsed.reject, dict(parsed.detail)
        if bad:
            reject = reject.copy()
            for i, (code, text) in bad.items():
                reject[row[i]] = code
                detail[int(row[i])] = text
            events = [events[i] for i in keep]
            x, time, row = x[keep], time[keep], row[keep]
            gradient = None if gradient is None else gradient[keep]
        batch = _batch(
            events,
            x,
            schema,
            self.hash_seed,
            y=y,
            offset=parsed.offset[row],
            time_ns=time,
            gradient=gradient,
            n_classes=len(labels),
            label_names=labels.names,
        )
        return Decoded(batch, row, reject, detail, labels, schema)

    def _refuse_labels(self, y: Int32Array, keep: Sequence[int], bad: Bad, known: int) -> None:
        text = f"the label is new, and the stream already has {known} labels"
        if known < self.limits.max_labels:
            text = "the label is new, and its source has brought too many that are hardly used"
        for at in np.flatnonzero(y < 0).tolist():
            bad[keep[at]] = (RejectCode.LABEL_LIMIT, text)

    def _gradients(
        self, events: Sequence[Event], schema: Schema, bad: Bad
    ) -> tuple[FloatArray | None, Schema]:
        """float64[m, p], NaN rows for events without one; None when none has one."""
        given = [event.gradient for event in events]
        if given.count(None) == len(given):
            return None, schema
        if schema.gradient_dim is None:
            good = (values for row, values in enumerate(given) if row not in bad)
            schema = replace(schema, gradient_dim=commonest_length(good))
        for row, values in enumerate(given):
            if values is not None and row not in bad and len(values) != schema.gradient_dim:
                text = f"gradient has {len(values)} numbers; this stream has {schema.gradient_dim}"
                bad[row] = (RejectCode.WRONG_DIMENSION, text)
        if schema.gradient_dim is None:
            return None, schema
        gradient = np.full((len(given), schema.gradient_dim), np.nan)
        for row, values in enumerate(given):
            if values is not None and row not in bad:
                gradient[row] = values
        return (None if np.isnan(gradient).all() else gradient), schema


def _batch(
    events: Sequence[Event], x: FloatArray, schema: Schema, seed: int, **columns: Any
) -> EventBatch:
    """The columns of the kept events; ``columns`` are those that are known already."""
    g, z = schema.transform(x)
    ids = [event.id for event in events]
    sources = [event.source for event in events]
    labels = [event.label for event in events]
    weights = [event.weight for event in events]
    said = [event.prediction for event in events]
    prediction = None
    if said.count(None) < len(said):
        own = [own_prediction(p, label) for p, label in zip(said, labels, strict=True)]
        prediction = np.array(own, dtype=np.float64)
    weight = np.ones(len(events))
    if weights.count(None) < len(weights):
        weight = np.array([1.0 if w is None else w for w in weights], dtype=np.float64)
    return EventBatch(
        x=x,
        g=g,
        z=z,
        source=hash_repeated(sources, seed),
        subject=hash_optional([event.subject for event in events], seed),
        id_hash=hash_texts(ids, seed),
        content=hash_rows(x, seed),
        weight=weight,
        ids=ids,
        sources=sources,
        labels=labels,
        columns=schema.columns,
        prediction=prediction,
        **columns,
    )


def _brackets(text: bytes) -> int:
    """How many objects and arrays open in ``text``, those inside strings included."""
    # "[" and "{" differ in one bit.
    return int(np.count_nonzero((np.frombuffer(text, dtype=np.uint8) & 0xDF) == 0x5B))


def _is_utf8(value: bytes) -> bool:
    try:
        return value.isascii() or bool(value.decode())
    except UnicodeDecodeError:
        return False


def _without(n: int, bad: Bad) -> list[int]:
    return [i for i in range(n) if i not in bad] if bad else list(range(n))


def time_ns(stamps: list[int | float | datetime], *, dated: bool) -> IntArray:
    """int64[m] nanoseconds since 1970 of the events' own time stamps, some of them ``dated``.

    Whole seconds and the fraction are converted apart, since a float of nanoseconds would round
    to about 0.2 µs even where the seconds were whole.
    """
    exact: dict[int, int] = {}
    if dated:
        stamps = stamps.copy()
        for i, ts in enumerate(stamps):
            if isinstance(ts, datetime):
                exact[i] = (ts - EPOCH) // MICROSECOND * 1000
                stamps[i] = 0
    seconds = np.array(stamps, dtype=np.float64)
    whole = np.floor(seconds)
    ns = whole.astype(np.int64) * 10**9 + np.rint((seconds - whole) * 1e9).astype(np.int64)
    if exact:
        ns[list(exact)] = list(exact.values())
    return np.asarray(ns, dtype=np.int64)
