"""Whether an export is right, and whether it is all there is of its time. Pure.

Audit records are linked as everywhere, decisions compared with their digests as they come, and
:mod:`monitor.state.audit_ends` tells whether something can be missing where the export ends.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO

import msgspec

from monitor.core.errors import StateError, UsageError
from monitor.state.audit import Record, opened
from monitor.state.audit_ends import Edge, Part, clock, left_out, of_header
from monitor.state.audit_export import (
    VERSION,
    BesideRow,
    DecisionRow,
    EndRow,
    HeaderRow,
    RecordRow,
    Span,
)
from monitor.state.audit_links import Entry, Finding
from monitor.state.audit_match import DecisionCheck, Expected
from monitor.state.audit_places import last_offset
from monitor.state.audit_verify import ChainReport, Report, Stand, Verification

_ROW = msgspec.json.Decoder(HeaderRow | RecordRow | DecisionRow | BesideRow | EndRow)
MOST_ROW_BYTES = 64 << 20
"""Of a row: many times what brokers take in one record, however it is escaped."""
_PACKED = {
    b"\x1f\x8b": "is packed (gzip): unpack it, and verify what comes out",
    b"\x28\xb5\x2f\xfd": "is packed (Zstandard): unpack it, and verify what comes out",
    b"PK\x03\x04": "is packed (ZIP): unpack it, and verify what comes out",
    b"\xef\xbb\xbf": "begins with a byte order mark, so a program saved it anew. Verify another "
    "copy, or export it again.",
}
_NO_EXPORT = (
    "is not a file that `audit export` wrote. Give that file, or the folder of a replay or a local "
    "service, not a file in it."
)


class _Reading:
    """Takes the rows of an export.

    Parameters
    ----------
    header
        The first of them.
    trusted, anchors, restarts
        As for :func:`verify_export`.
    """

    def __init__(
        self,
        header: HeaderRow,
        trusted: Mapping[str, str] | None,
        anchors: Sequence[bytes],
        *,
        restarts: bool,
    ) -> None:
        self.header, self._anchors = header, anchors
        self.keys = trusted is not None
        self._lines: list[bytes] = []
        fetch = self._lines.__getitem__
        self.check = Verification(fetch, trusted, restarts, cut=True, part=True)
        self.end: EndRow | None = None
        self.findings: list[Finding] = []
        self.records = self.decisions = self.beside = self.strays = 0
        self.stray: tuple[int, str] | None = None
        self.parts: dict[str, Part] = {}
        self.stands: dict[str, list[Stand]] = defaultdict(list)
        self._linked = False

    def take(self, number: int, row: object) -> None:
        """A row behind the header."""
        if self.end is not None or isinstance(row, HeaderRow):
            self.strays += 1
            self.stray = self.stray or (number, _kind(row))
        elif isinstance(row, EndRow):
            self.end = row
        elif isinstance(row, RecordRow):
            self.records += 1
            if self._linked:
                text = f"line {number} of the export is an audit record behind decisions: it was "
                self.findings.append(Finding("moved", "", f"line {number}", text + "moved"))
                return
            line = row.line.encode()
            self.check.add(line, len(self._lines), f"line {number} of the export")
            self._lines.append(line)
        elif isinstance(row, DecisionRow | BesideRow):
            self._decision(row)

    def _decision(self, row: DecisionRow | BesideRow) -> None:
        if not self._linked:
            self.link()
        asked = isinstance(row, DecisionRow)
        self.decisions += asked
        self.beside += not asked
        part = self.parts.get(row.chain)
        if part is None:
            part = self.parts[row.chain] = self._part(row.chain)
        part.add(row.line.encode(), self.header.since, self.header.until, asked=asked)

    def link(self) -> None:
        """All audit records are there."""
        if self._linked:
            return
        self._linked = True
        for line in self._anchors:
            self.check.anchor(line)
        self.check.link()
        for stand in self.check.stands:
            self.stands[stand.chain].append(stand)
        self.parts = {name: self._part(name) for name in self.check.names()}

    def _part(self, chain: str) -> Part:
        runs, place = self.check.runs(chain), self.header.place
        entries = [entry for run in runs for entry in run]
        if not entries:  # decisions of a chain that is not there
            nothing = DecisionCheck(chain, iter(()), place=place)
            return Part(chain, Span(0, 0, 0), (), nothing, Edge(0, -1), Edge(0, -1))
        whole = Span(entries[0].seq, entries[-1].seq, entries[-1].seq)
        span = self.header.chains.get(chain, whole)
        given = [entry for run in runs[:-1] for entry in run]
        given = [*given, *(e for e in runs[-1] if e.seq <= span.last)] or entries[:1]
        first, last = self._record(given[0]), self._record(given[-1])
        check = DecisionCheck(chain, self._expected(given), place=place)
        part = Part(chain, span, entries, check, Edge.of(first), Edge.of(last))
        part.people = first.kind != "decisions"
        part.earlier = {entry.hash for run in runs[:-1] for entry in run}
        known = {entry.seq: entry for entry in runs[-1]}
        for stand in self.stands.get(chain, ()):
            if stand.signed and stand.head.seq > part.signed:
                entry = known.get(stand.head.seq)
                if entry is not None and entry.hash == stand.head.hash:
                    part.signed = entry.seq
        if part.signed:
            part.signed_to = last_offset(self._record(known[part.signed]))
        return part

    def _record(self, entry: Entry) -> Record:
        return opened(self._lines[entry.at]).record

    def _expected(self, entries: Sequence[Entry]) -> Iterator[Expected]:
        for entry in entries:
            record = self._record(entry)
            if record.kind != "decisions":
                return
            try:
                yield Expected.of(record)
            except StateError as error:
                place = f"record {record.seq}"
                self.findings.append(Finding("changed", record.chain, place, str(error)))


def rows_of(stream: BinaryIO) -> Iterator[bytes]:
    """The rows of a file, of which not more is read at once than the longest may have.

    Raises
    ------
    UsageError
        When one is longer than 64 MiB.
    """
    number = 1
    while row := stream.readline(MOST_ROW_BYTES + 1):
        if len(row) > MOST_ROW_BYTES:
            raise UsageError(
                f"line {number} is longer than {MOST_ROW_BYTES >> 20} MiB: it is not of an export"
            )
        yield row
        number += 1


def verify_export(
    rows: Iterable[bytes],
    trusted: Mapping[str, str] | None,
    anchors: Sequence[bytes] = (),
    *,
    restarts: bool = False,
) -> Report:
    """Check the lines of a file that an export gave; they are read once.

    Parameters
    ----------
    rows
        The lines with their newlines.
    trusted
        Public keys by id; with them the ends have to be proven by what is signed.
    anchors
        Heads that were kept elsewhere.
    restarts
        Whether a chain may have been begun anew.

    Raises
    ------
    UsageError
        When it is no export, or one of another version.
    """
    digest, reading = hashlib.sha256(), None
    for number, row in enumerate(rows, 1):
        try:
            said = _ROW.decode(row)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(_refused(number, row, error)) from None
        if reading is None:
            if not isinstance(said, HeaderRow):
                raise UsageError(_NO_EXPORT)
            if said.version != VERSION:
                raise UsageError(_of_version(said.version))
            reading = _Reading(said, trusted, anchors, restarts=restarts)
        else:
            reading.take(number, said)
        if not isinstance(said, EndRow):
            digest.update(row)
    if reading is None:
        raise UsageError("is empty: export it again")
    reading.link()
    return _concluded(reading, digest.hexdigest())


def _refused(number: int, row: bytes, error: Exception) -> str:
    if number > 1:
        return (
            f"line {number} is not of an export, so the file was changed or cut: {error}. "
            "Verify another copy, or export it again."
        )
    for mark, text in _PACKED.items():
        if row.startswith(mark):
            return text
    try:
        said = msgspec.json.decode(row)
        if said["type"] == "export" and said["version"] != VERSION:
            return _of_version(int(said["version"]))
    except (
        *(msgspec.MsgspecError, UnicodeDecodeError, RecursionError),
        *(KeyError, TypeError, ValueError),
    ):
        pass
    return _NO_EXPORT


def _of_version(version: int) -> str:
    return f"is an export of version {version}; this is for version {VERSION}: export it again"


def _kind(row: object) -> str:
    if isinstance(row, HeaderRow | EndRow):
        return "a beginning" if isinstance(row, HeaderRow) else "an end"
    return "an audit record" if isinstance(row, RecordRow) else "a decision"


def _concluded(reading: _Reading, digest: str) -> Report:
    """What came out, once all rows are there."""
    parts, header, stands = list(reading.parts.values()), reading.header, reading.check.stands
    report = reading.check.report(decisions=False)
    findings = [*report.findings, *_cut(reading), *of_header(header, parts)]
    findings += left_out((part.chain for part in parts if part.entries), header, stands)
    findings += _unknown(reading)
    ends: dict[str, tuple[str, str]] = {}
    for part in parts:
        findings += part.finish(header)
        if part.entries:
            begins, early = part.first_words(header)
            said = reading.stands.get(part.chain, ())
            ended, late = part.last_words(header, said, keys=reading.keys)
            findings += [found for found in (early, late) if found is not None]
            ends[part.chain] = begins, ended
    findings += [*reading.findings, *_strays(reading)]
    unsigned = [part for part in parts if part.unsigned]
    if reading.keys:
        findings += map(_unsigned, unsigned)
    if not findings:
        findings += _otherwise(reading, digest)
    notes = [*report.notes, *_notes(parts, ends, [] if reading.keys else unsigned)]
    chains = tuple(_told(c, reading.parts[c.chain], ends[c.chain]) for c in report.chains)
    return replace(
        report, findings=tuple(findings), chains=chains, notes=tuple(notes), period=_period(reading)
    )


def _period(reading: _Reading) -> str:
    """Which time it says it is of: whoever asked for another one cannot tell by the chains."""
    header, n = reading.header, reading.decisions
    text = f"an export of {clock(header.since)} up to {clock(header.until)}, not including it: "
    text += "1 decision" if n == 1 else f"{n:,} decisions"
    return f"{text}, {reading.beside:,} beside as proof"


def _told(report: ChainReport, part: Part, ends: tuple[str, str]) -> ChainReport:
    begins, ended = ends
    return replace(report, decisions=part.check.checked, begins=begins, ends=ended or "not proven")


def _cut(reading: _Reading) -> Iterator[Finding]:
    header, end = reading.header, reading.end
    if end is None:
        text = "the export has no end: the file was cut off, or was not written whole"
        yield Finding("truncated", "", "end", text)
        return
    for name, first, last in (
        ("--from", header.since, end.since),
        ("--to", header.until, end.until),
    ):
        if first != last:
            text = f"{name} is {first} in the export's first row and {last} in its last one: it was"
            yield Finding("changed", "", name, text + " altered")


def _strays(reading: _Reading) -> Iterator[Finding]:
    """Rows behind the end, and beginnings within: one finding, as they may be a whole file."""
    if reading.stray is None:
        return
    number, kind = reading.stray
    text, more = (
        f"line {number} of the export is {kind} out of place: it was inserted",
        reading.strays - 1,
    )
    if more:
        text += f", as {more:,} behind it were. Of several exports in one file verify each alone"
    yield Finding("inserted", "", f"line {number}", text)


def _unknown(reading: _Reading) -> Iterator[Finding]:
    """Where nothing says which chains there were."""
    if not any(part.entries for part in reading.parts.values()):
        yield Finding("unproven", "", "chains", "the export holds no chain: it proves nothing")
    elif reading.keys and reading.check.headed < reading.header.until:
        text = (
            "which chains there were by the end of the period is not proven: no signed heads of "
            "--to or later are in the export. They were left out, or it was made before any were "
            "written"
        )
        yield Finding("unproven", "", "chains", text)


def _unsigned(part: Part) -> Finding:
    some = _counted(part.unsigned)
    text = f"{some} of chain {part.chain} not covered by a signed head: they were inserted, or the "
    return Finding("signature", part.chain, f"record {part.signed + 1}", text + "export was made "
                   "before the head was written")  # fmt: skip


def _otherwise(reading: _Reading, digest: str) -> Iterator[Finding]:
    """What only the last row tells, where there is nothing else."""
    end = reading.end
    if end is None:
        return
    there = reading.records, reading.decisions, reading.beside
    if end.sha256 != digest or (end.records, end.decisions, end.beside) != there:
        text = "the rows of the export are not those that its last one tells of: the file was "
        yield Finding("changed", "", "file", text + "changed where no chain shows it")


def _notes(
    parts: Sequence[Part], ends: Mapping[str, tuple[str, str]], unsigned: Sequence[Part]
) -> Iterator[str]:
    """What could not be checked."""
    if unsigned:
        yield f"{_counted(sum(part.unsigned for part in unsigned))} not covered by a signed head"
    for people in (False, True):
        which = [
            p.chain for p in parts if p.people == people and p.entries and not ends[p.chain][1]
        ]
        if which:
            names = ", ".join(which[:5]) + (f" and {len(which) - 5} more" if which[5:] else "")
            reason = "no record is of --to or later" if people else (
                "neither is a record of --to or later, nor says a head of then where it stood"
            )  # fmt: skip
            yield f"that {names} did not go on within the period is not proven: {reason}"


def _counted(n: int) -> str:
    return "1 decision is" if n == 1 else f"{n:,} decisions are"
