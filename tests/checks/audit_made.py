"""Chains that are made for tests of an export, and somebody who rewrites all that is not signed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from monitor.state.audit import Chaining, Head, Judging, extend, opened, seal
from monitor.state.audit_keys import SigningKey
from monitor.state.audit_places import Source

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(b"k" * 32))
TRUSTED = {KEY.id: KEY.public}
Rows = list[dict[str, object]]


def decision(partition: int, at: int, ts: object, *, place: str = "line") -> bytes:
    number = at + (place == "line")
    names = {"id": f"e{at}", "ts": ts, "source": "s", "label": "a", "partition": partition}
    return orjson.dumps(names | {place: number, "verdict": "accept"})


class Made:
    """Chains of a service, which are written as it would; its clock is given with each call."""

    def __init__(self, stream: str = "local", *, place: str = "line") -> None:
        self.stream, self.place = stream, place
        self.lines: dict[str, list[bytes]] = defaultdict(list)
        self.decisions: dict[str, list[bytes]] = defaultdict(list)
        self.heads: dict[str, Head] = defaultdict(Head)

    def batch(self, partition: int, times: Sequence[object]) -> None:
        """A batch of events of these times."""
        chain, by = f"{self.stream}-{partition}", Chaining(self.stream, "1")
        start = len(self.decisions[chain])
        offsets = np.arange(start, start + len(times))
        records = [
            decision(partition, int(at), ts, place=self.place)
            for at, ts in zip(offsets, times, strict=True)
        ]
        judging = Judging(partition, 1, "empty@0")
        lines, self.heads[chain] = extend(self.heads[chain], by, judging, offsets, records)
        self.lines[chain] += lines
        self.decisions[chain] += records

    def deed(self, desk: str, when: float, what: str = "release", **more: object) -> None:
        """Somebody does something."""
        self._desk(desk, "desk", {"what": what, "who": "ana", "why": "known", "when": when, **more})

    def stand(self, desk: str, when: float, chains: Sequence[str] | None = None) -> None:
        """Heads are written down."""
        names = [n for n in self.decisions if n in self.heads] if chains is None else chains
        told = {name: (self.heads[name].seq, self.heads[name].hash) for name in names}
        self._desk(desk, "heads", {"when": when, "heads": told})

    def _desk(self, desk: str, kind: str, fields: dict[str, object]) -> None:
        fields |= {"software": "1", "key": KEY.id, "public_key": KEY.public}
        line, self.heads[desk] = seal(self.heads[desk], desk, kind, fields)
        self.lines[desk].append(KEY.sign(line, self.heads[desk].hash))

    def source(self) -> Source:
        """All of it."""
        lines = [line for some in self.lines.values() for line in some]
        found = [(name, records) for name, records in self.decisions.items() if records]
        return Source(self.stream, self.place, lines, lambda: iter(found))


def read(data: bytes) -> Rows:
    """The rows of an export."""
    return [orjson.loads(row) for row in data.splitlines()]


def written(rows: Rows) -> bytes:
    """The file of these rows, as they are."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def careful(rows: Rows) -> bytes:
    """The file of these rows, with all that is not signed made to agree with them."""
    seqs: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if row["type"] == "record":
            record = opened(row["line"].encode()).record
            seqs[record.chain].append(record.seq)
    header, *body = rows
    if body and body[-1]["type"] == "end":
        body.pop()
    spans = {
        name: (
            min(found),
            min(max(found), header["chains"].get(name, (0, max(found)))[1]),
            max(found),
        )
        for name, found in seqs.items()
    }
    data = written([header | {"chains": spans}, *body])
    counts = {
        name: sum(row["type"] == kind for row in body)
        for name, kind in (("records", "record"), ("decisions", "decision"), ("beside", "beside"))
    }
    end = {"type": "end", "from": header["from"], "to": header["to"]} | counts
    return data + written([end | {"sha256": hashlib.sha256(data).hexdigest()}])


def without(rows: Rows, which: Callable[[dict[str, object]], bool]) -> Rows:
    """All rows but some."""
    return [row for row in rows if not which(row)]
