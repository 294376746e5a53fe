"""The audit chains of a folder that a replay, or a service on files, has written or is writing."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monitor.core.errors import StateError, UsageError
from monitor.state.audit import Head
from monitor.state.audit_places import Source
from monitor.state.audit_verify import Report, Verification
from monitor.state.recovery import Stamp
from monitor.transport.local_journal import Entry, last_entry

AUDIT = "audit.jsonl"
DESK = "audit-desk.jsonl"
DECISIONS = "decisions.jsonl"
CHAIN = "local-0"
BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Trust:
    """What a verification goes by: public keys by id, anchored heads, and what it forgives."""

    keys: Mapping[str, str] | None = None
    anchors: Sequence[bytes] = ()
    restarts: bool = False


@dataclass(slots=True)
class Lines:
    """The lines of a file up to a length, and where each begins."""

    path: Path
    size: int
    starts: list[int] = field(default_factory=list)

    def blocks(self) -> Iterator[list[bytes]]:
        """Lines without their newlines, many at a time; what is torn at the end is one too."""
        left, rest = self.size, b""
        with self.path.open("rb") as stream:
            while left > 0 and (data := stream.read(min(BLOCK_BYTES, left))):
                left -= len(data)
                *whole, rest = (rest + data).split(b"\n")
                if whole:
                    yield whole
        if rest:
            yield [rest]

    def remembered(self) -> Iterator[bytes]:
        """The same one by one, so that :meth:`get` finds them again."""
        at = 0
        for block in self.blocks():
            for line in block:
                self.starts.append(at)
                at += len(line) + 1
                yield line

    def get(self, number: int) -> bytes:
        """A line that was read."""
        with self.path.open("rb") as stream:
            stream.seek(self.starts[number])
            return stream.readline().rstrip(b"\n")


class AuditFolder:
    """A folder as it is at this moment, up to its last commit.

    Raises
    ------
    UsageError
        When there is no audit chain in it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(
                f"{folder}: there is no such folder; give that of a replay or a local service"
            )
        self.folder = folder
        # First: a running service writes down heads of what it has committed before.
        desk = folder / DESK
        *self.desk, torn = (desk.read_bytes() if desk.is_file() else b"").split(b"\n")
        self.entry = last_entry(folder / ".monitor") or Entry()
        self.notes: list[str] = [f"{DESK} ends in half a line"] if torn else []
        if not (folder / AUDIT).is_file() and not self.head().seq:
            raise UsageError(
                f"{folder} holds no {AUDIT}: not the folder of a replay or a local service, or of "
                "one from before there was an audit chain"
            )

    def lines(self, name: str) -> Lines:
        """The lines of one of its files. What a killed process left half written is not counted."""
        path = self.folder / name
        size = path.stat().st_size if path.is_file() else 0
        committed = self.entry.lengths.get(name.removesuffix(".jsonl"), 0)
        if not self.entry.finished and self.entry.lengths and size > committed:
            if not _busy(self.folder):
                self.notes.append(
                    f"{name}: what is behind the last commit ({size - committed:,} B) is not "
                    "checked; the next start cuts it off"
                )
            size = committed
        return Lines(path if size else Path("/dev/null"), size)

    def head(self) -> Head:
        """Where the journal says that the chain of decisions stands."""
        if self.entry.stamp is None:
            return Head()
        try:
            return Stamp.decode(self.entry.stamp).audit
        except StateError:
            return Head()


def _busy(folder: Path) -> bool:
    path = folder / ".monitor" / "lock"
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def verify_folder(folder: Path, trust: Trust | None = None) -> Report:
    """Check everything in ``folder``. Raises UsageError where there is nothing to check."""
    trust = trust or Trust()
    there = AuditFolder(folder)
    lines = there.lines(AUDIT)

    def fetch(at: int) -> bytes:
        return lines.get(at) if at < len(lines.starts) else there.desk[at - len(lines.starts)]

    check = Verification(fetch, trust.keys, trust.restarts)
    for number, line in enumerate(lines.remembered()):
        check.add(line, number, f"line {number + 1} of {AUDIT}")
    for number, line in enumerate(there.desk):
        check.add(line, len(lines.starts) + number, f"line {number + 1} of {DESK}")
    for line in trust.anchors:
        check.anchor(line)
    check.claim("the journal", CHAIN, there.head())
    check.link()
    chains = check.chains() or [CHAIN]
    decisions = check.decisions(chains[0], place="line")
    for block in there.lines(DECISIONS).blocks():
        decisions.feed(block)
    return check.report(there.notes)


def folder_source(folder: Path) -> Source:
    """What there is in ``folder`` for an export, or for looking an event up."""
    there = AuditFolder(folder)
    lines = [*there.lines(AUDIT).remembered(), *there.desk]

    def decisions() -> Iterator[tuple[str, Sequence[bytes]]]:
        for block in there.lines(DECISIONS).blocks():
            yield CHAIN, block

    return Source(str(folder), "line", lines, decisions)
