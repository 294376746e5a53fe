"""How a partition's state comes back: the latest snapshot, then the input since it, again.

The gate is pure, so judging the same records again in the same batches gives the same state, to
the bit. What must be remembered is small: where the snapshot was taken and where each batch since
then ended. That is the :class:`Stamp`, committed with every batch. Everything here is pure.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from monitor.core.errors import StateError
from monitor.core.ports import Resume
from monitor.core.types import Header, RawBatch
from monitor.state.audit import Head
from monitor.state.snapshots import SNAPSHOT_VERSION, seal, snapshot_digest, unseal

__all__ = [
    "SNAPSHOT_VERSION",
    "Stamp",
    "advance",
    "begin",
    "recover",
    "recut",
    "seal",
    "snapshot_digest",
    "unseal",
]

STAMP_VERSION = 3
READABLE_STAMPS = (1, 2, STAMP_VERSION)
"""Version 1 knew no batches that were let by unjudged, and names no view; neither it nor version 2
knew of an audit chain, or what the snapshot is worth, or had a checksum."""
_CHECKED = 3
"""From this version on a stamp ends with the CRC-32 of the rest."""
FROM_EMPTY = -1

G = TypeVar("G")


class Stamp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to be known about a committed batch so that its state can be computed again.

    Attributes
    ----------
    version
        Of this record's form.
    partition, next_offset
        Input partition and the position at which reading goes on.
    snapshot_offset
        ``next_offset`` of the snapshot this builds on, −1 when it builds on the empty state.
    start_offset
        Where the empty state began. Replay starts here when there is no snapshot yet.
    boundaries
        ``next_offset`` of each batch since the snapshot, rising; the last is ``next_offset``.
    counts
        Records in each of those batches. Offsets may have gaps, so that only the counts can
        tell a gap from records that were deleted.
    unjudged
        Those of ``boundaries`` whose batches were let by unjudged in an overload: nothing was
        learned from them.
    digest
        Digest of the state in hexadecimal digits, empty when it was not computed.
    policy_version
        The policy these batches were judged under. There is a snapshot at every change of it.
    view
        Digest of what was known of the other partitions, in hexadecimal digits; empty for
        nothing. It changes with snapshots only.
    snapshot_digest
        SHA-256, 32 hexadecimal digits of it, of the snapshot as it is stored; empty for none.
    audit
        Where the partition's chain of audit records stands (:mod:`monitor.state.audit`). It is
        kept here and not in the gate's state because it follows from what was written, which a
        replay need not give again: batches that were let by, or judged by a forgotten policy.
    check
        CRC-32 of the record as it is written with this empty, in eight hexadecimal digits. Only
        :meth:`encode` fills it in: a stamp at hand has none.
    """

    partition: int
    next_offset: int
    snapshot_offset: int = FROM_EMPTY
    start_offset: int = 0
    boundaries: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    unjudged: tuple[int, ...] = ()
    digest: str = ""
    policy_version: int = 0
    view: str = ""
    snapshot_digest: str = ""
    audit: Head = Head()
    version: int = STAMP_VERSION
    check: str = ""

    def encode(self) -> bytes:
        """JSON, readable on a topic and in a journal, with its checksum at the end.

        Examples
        --------
        >>> begin(0, 5).encode()[-31:-10]
        b'"version":3,"check":"'
        """
        body = msgspec.json.encode(msgspec.structs.replace(self, check=""))
        return b'%s%08x"}' % (body[:-2], zlib.crc32(body))

    @classmethod
    def decode(cls, data: bytes) -> Stamp:
        """The stamp in ``data``.

        Raises
        ------
        StateError
            When it is damaged, so that its checksum differs, inconsistent or of another version.
        """
        try:
            stamp = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError(
                f"The stored state stamp cannot be read ({error}). It is damaged or was written by "
                "another version of the monitor: use that version, or start with empty state."
            ) from None
        if stamp.version not in READABLE_STAMPS:
            raise StateError(
                f"The stored state stamp has version {stamp.version}, this monitor reads versions "
                f"up to {STAMP_VERSION}: use the version that wrote it, or start with empty state."
            )
        rest = data[:-10] + b'"}'  # without the eight digits
        has_one = stamp.version >= _CHECKED or stamp.check  # the version may be what is damaged
        if has_one and stamp.check != f"{zlib.crc32(rest):08x}":
            raise StateError(
                f"The stored state stamp of partition {stamp.partition} is damaged (checksum "
                "differs): restore the state from a copy, or start with empty state."
            )
        _check(stamp)
        return msgspec.structs.replace(stamp, version=STAMP_VERSION, check="")

    @property
    def replay_from(self) -> int:
        """Input position at which the replay begins."""
        return self.start_offset if self.snapshot_offset == FROM_EMPTY else self.snapshot_offset

    @property
    def state(self) -> str:
        """What the next batch is judged by: the state stored last, and where that was."""
        if self.snapshot_offset == FROM_EMPTY:
            return f"empty@{self.start_offset}"
        return f"{self.snapshot_digest or 'unknown'}@{self.snapshot_offset}"


def _check(stamp: Stamp) -> None:
    ends = (stamp.replay_from, *stamp.boundaries)
    rising = all(a < b for a, b in itertools.pairwise(ends))
    whole = len(stamp.counts) == len(stamp.boundaries) and all(n > 0 for n in stamp.counts)
    known = set(stamp.unjudged) <= set(stamp.boundaries)
    if not (rising and whole and known and ends[-1] == stamp.next_offset):
        raise StateError(
            f"The stored state stamp of partition {stamp.partition} contradicts itself: restore "
            "the state from a copy, or start with empty state."
        )


def begin(partition: int, offset: int, policy_version: int = 0) -> Stamp:
    """The stamp of the empty state that starts reading at ``offset``."""
    return Stamp(
        partition=partition,
        next_offset=offset,
        start_offset=offset,
        policy_version=policy_version,
    )


def advance(
    stamp: Stamp,
    next_offset: int,
    count: int,
    *,
    policy_version: int,
    snapshot: bool,
    digest: str = "",
    judged: bool = True,
    view: str = "",
    snapshot_digest: str = "",
    audit: Head | None = None,
) -> Stamp:
    """The stamp after a batch of ``count`` > 0 records that ends before ``next_offset``.

    ``view`` is that of the state after it, ``audit`` where its chain stands then; None leaves it.
    """
    passed = stamp.unjudged if judged else (*stamp.unjudged, next_offset)
    if next_offset <= stamp.next_offset or count <= 0:
        raise StateError(
            f"Partition {stamp.partition} went from offset {stamp.next_offset} to {next_offset} "
            f"with {count} records: the input was rewound or replaced while it was being read."
        )
    return msgspec.structs.replace(
        stamp,
        next_offset=next_offset,
        snapshot_offset=next_offset if snapshot else stamp.snapshot_offset,
        boundaries=() if snapshot else (*stamp.boundaries, next_offset),
        counts=() if snapshot else (*stamp.counts, count),
        unjudged=() if snapshot else passed,
        policy_version=policy_version,
        digest=digest,
        view=view,
        snapshot_digest=snapshot_digest if snapshot else stamp.snapshot_digest,
        audit=stamp.audit if audit is None else audit,
    )


def recover(
    resume: Resume,
    *,
    start: Callable[[], G],
    load: Callable[[bytes], G],
    step: Callable[[G, RawBatch], G],
    read_range: Callable[[int, int, int], Iterator[RawBatch]],
    digest: Callable[[G], str] | None = None,
    view: Callable[[G], str] | None = None,
    policy_version: int | None = None,
    under: Callable[[int], Callable[[G, RawBatch], G] | None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> tuple[G, Stamp]:
    """Bring the state of one partition to where its last commit left it. Writes nothing.

    Without a stamp this is a fresh start from ``resume.next_offset``. When that is not the
    beginning of the input (someone committed an offset, or deleted the state) it is still not an
    error: the monitor starts with empty state there and says so through ``notice``, because
    refusing to run would leave the learner unguarded or starved.

    Parameters
    ----------
    start, load, step
        The empty state; a state from the body of a snapshot; the state after a batch.
    read_range
        ``(partition, start, stop)`` to the input records in between, in batches of any size.
    digest
        When given, a state whose stamp carries a digest is compared with it.
    view
        When given, what a state knows of other partitions is compared with the stamp.
    policy_version
        The policy ``step`` judges under, to tell when the recorded one was another.
    under
        The step under the policy of a version, or None where that policy is not known any more.
    notice
        Receives sentences for the operator.

    Raises
    ------
    StateError
        When stamp, snapshot, input and committed offset do not fit together.
    """
    tell = notice if notice is not None else _ignore
    if resume.stamp is None:
        if resume.next_offset > 0:
            tell(
                f"Partition {resume.partition} goes on at offset {resume.next_offset} but has no "
                "stored state: starting with empty state, so detectors warm up again."
            )
        return start(), begin(resume.partition, resume.next_offset, policy_version or 0)
    stamp = Stamp.decode(resume.stamp)
    _fits(stamp, resume)
    if policy_version is not None and stamp.boundaries and stamp.policy_version != policy_version:
        recorded = None if under is None else under(stamp.policy_version)
        step = step if recorded is None else recorded
    else:
        recorded = step
    if recorded is None:
        tell(
            f"Partition {stamp.partition}: {sum(stamp.counts)} events since the last snapshot were "
            f"judged under policy {stamp.policy_version} and are learned again under policy "
            f"{policy_version}; what was decided about them stands."
        )
        digest = None
    state = start() if stamp.snapshot_offset == FROM_EMPTY else load(_body(stamp, resume.snapshot))
    if stamp.boundaries:
        records = read_range(stamp.partition, stamp.replay_from, stamp.next_offset)
        passed = frozenset(stamp.unjudged)
        for end, batch in zip(stamp.boundaries, recut(records, stamp), strict=True):
            if end not in passed:
                state = step(state, batch)
    if view is not None and view(state) != stamp.view:
        raise StateError(
            f"The state of partition {stamp.partition} at offset {stamp.next_offset} knows of the "
            "other partitions what it did not when it was committed: restore the state from a "
            "copy, or start with empty state."
        )
    if digest is not None and stamp.digest and digest(state) != stamp.digest:
        raise StateError(
            f"The state of partition {stamp.partition} at offset {stamp.next_offset} came out "
            "different from the one that was committed: the input, the settings or the monitor's "
            "version changed since. Use the same ones, or start with empty state."
        )
    return state, stamp


def _ignore(_: str) -> None:
    return None


def _fits(stamp: Stamp, resume: Resume) -> None:
    if stamp.partition != resume.partition:
        raise StateError(
            f"The state stored for partition {resume.partition} says it is of partition "
            f"{stamp.partition}: restore the state from a copy, or start with empty state."
        )
    if stamp.next_offset != resume.next_offset:
        raise StateError(
            f"Partition {resume.partition}: input is committed up to offset {resume.next_offset} "
            f"but the stored state ends at {stamp.next_offset}. If offsets were reset by hand, set "
            f"them back to {stamp.next_offset}, or delete the stored state to start empty."
        )


def _body(stamp: Stamp, snapshot: bytes | None) -> bytes:
    if snapshot is None:
        raise StateError(
            f"The snapshot of partition {stamp.partition} at offset {stamp.snapshot_offset} is "
            "missing: restore it from a copy, or delete the stored state to start empty."
        )
    if stamp.snapshot_digest and snapshot_digest(snapshot) != stamp.snapshot_digest:
        raise StateError(
            f"The snapshot of partition {stamp.partition} at offset {stamp.snapshot_offset} is not "
            "the one that was stored: restore it from a copy, or start with empty state."
        )
    partition, offset, body = unseal(snapshot)
    if (partition, offset) != (stamp.partition, stamp.snapshot_offset):
        raise StateError(
            f"Expected the snapshot of partition {stamp.partition} at offset "
            f"{stamp.snapshot_offset} but found that of partition {partition} at offset {offset}: "
            "restore the right one, or delete the stored state to start empty."
        )
    return body


def recut(records: Iterator[RawBatch], stamp: Stamp) -> Iterator[RawBatch]:
    """Cut what ``records`` brings at the stamp's boundaries; batches as they were judged.

    Holds one batch at a time. A batch ends at its last record, so ``end - 1`` is always an offset
    that exists. Raises StateError when there are fewer or more records than were judged.
    """
    rest: RawBatch | None = None
    for end, count in zip(stamp.boundaries, stamp.counts, strict=True):
        pieces: list[RawBatch] = []
        while rest is None or not len(rest) or int(rest.offset[-1]) < end - 1:
            if rest is not None and len(rest):
                pieces.append(rest)
            rest = next(records, None)
            if rest is None:
                break
        if rest is not None:
            cut = int(np.searchsorted(rest.offset, end))
            pieces.append(_slice(rest, 0, cut))
            rest = _slice(rest, cut, len(rest))
        batch = _join(stamp.partition, pieces)
        if len(batch) != count:
            raise StateError(
                f"Partition {stamp.partition}: {count} records ended at offset {end} when they "
                f"were judged, {len(batch)} are there now. The input was deleted, compacted or "
                "replaced: keep input for longer than the time between snapshots, or delete the "
                "stored state to start empty."
            )
        yield batch


def _slice(batch: RawBatch, start: int, stop: int) -> RawBatch:
    return RawBatch(
        batch.partition,
        batch.offset[start:stop],
        batch.values[start:stop],
        None if batch.keys is None else batch.keys[start:stop],
        None if batch.headers is None else batch.headers[start:stop],
    )


def _join(partition: int, pieces: Sequence[RawBatch]) -> RawBatch:
    pieces = [piece for piece in pieces if len(piece)]
    if len(pieces) == 1:
        return pieces[0]
    offsets = [piece.offset for piece in pieces]
    values = [value for piece in pieces for value in piece.values]
    keys: list[bytes | None] = []
    headers: list[Sequence[Header]] = []
    for piece in pieces:
        keys += piece.keys if piece.keys is not None else [None] * len(piece)
        headers += piece.headers if piece.headers is not None else [()] * len(piece)
    return RawBatch(
        partition,
        np.concatenate(offsets) if offsets else np.empty(0, dtype=np.int64),
        values,
        keys if any(piece.keys is not None for piece in pieces) else None,
        headers if any(piece.headers is not None for piece in pieces) else None,
    )
