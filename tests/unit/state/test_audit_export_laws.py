"""An export's law: what passes with the key is all there is, whoever wrote the rest of the file."""

from __future__ import annotations

import io

import orjson
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from monitor.state.audit import opened
from monitor.state.audit_export import Export
from monitor.state.audit_proof import verify_export
from tests.checks.audit_made import TRUSTED, Made, careful, read

DESK = "desk-one"
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("deed"), st.just(0), st.just(0)),
        st.tuples(st.just("stand"), st.just(0), st.just(0)),
    ),
    min_size=4,
    max_size=40,
)


def service(steps, jitter):
    """What a service makes of these steps, one a second; events are as late as ``jitter`` says."""
    made, clock = Made("feedback", place="offset"), 1000.0
    for number, (what, partition, count) in enumerate(steps):
        clock += 1.0
        if what == "batch":
            late = jitter[number % len(jitter)]
            made.batch(partition, [clock - 0.5 - late + i * 0.1 for i in range(count)])
        elif what == "deed":
            made.deed(DESK, clock)
        else:
            made.stand(DESK, clock)
    made.stand(DESK, clock + 1.0)
    return made, clock


def truth(made, since, until):
    """The decisions and deeds of a period."""
    decided = [
        (chain, record.decode())
        for chain, records in made.decisions.items()
        for record in records
        if since <= orjson.loads(record)["ts"] < until
    ]
    deeds = [
        line.decode() for line in made.lines[DESK] if since <= opened(line).record.when < until
    ]
    return sorted(decided), sorted(deeds)


def told(rows):
    """The same, as a file has them."""
    since, until = rows[0]["from"], rows[0]["to"]
    decided = [(row["chain"], row["line"]) for row in rows if row["type"] == "decision"]
    records = [row["line"] for row in rows if row["type"] == "record"]
    found = [(line, opened(line.encode()).record) for line in records]
    deeds = [line for line, r in found if r.chain == DESK and since <= r.when < until]
    return sorted(decided), sorted(deeds)


def checked(data):
    return verify_export(io.BytesIO(data), TRUSTED)


PERIOD = st.tuples(st.integers(-2, 44), st.integers(1, 30))
JITTER = st.lists(st.sampled_from([0.0, 0.0, 2.0, 7.0, 400.0]), min_size=1, max_size=7)


@settings(max_examples=120, deadline=None)
@given(STEPS, JITTER, PERIOD)
def test_an_export_holds_what_there_is_and_passes(steps, jitter, period):
    made, clock = service(steps, jitter)
    since = 1000.0 + period[0]
    until = min(since + period[1], clock + 1.0)
    assume(since < until)
    export = Export(made.source(), since, until)
    data = b"".join(export.rows())
    report = checked(data)
    assert (report.findings, report.notes, export.open, export.unproven) == ((), (), [], 0)
    rows = read(data)
    assert told(rows) == truth(made, since, until)
    assert checked(careful(rows)).findings == ()


@st.composite
def tampering(draw, rows):
    """What somebody leaves out of these rows, or puts in another way."""
    rows = list(rows)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["row", "ends", "records", "chain", "flip", "period"]))
        names = sorted(rows[0]["chains"])
        if kind == "row" and len(rows) > 2:
            del rows[draw(st.integers(1, len(rows) - 1))]
        elif kind in ("ends", "records") and names:
            chain = draw(st.sampled_from(names))
            first, _, last = rows[0]["chains"][chain]
            cut = draw(st.integers(first, last))
            ends = (first, cut) if draw(st.booleans()) else (cut, last)
            if kind == "records":
                ends = sorted((cut, draw(st.integers(first, last))))
            rows = [rows[0], *lacking(rows[1:], chain, *ends)]
        elif kind == "chain" and names:
            rows = [rows[0], *lacking(rows[1:], draw(st.sampled_from(names)), 0, 1 << 30)]
        elif kind == "flip" and len(rows) > 2:
            at = draw(st.integers(1, len(rows) - 1))
            other = {"decision": "beside", "beside": "decision"}
            rows[at] = rows[at] | {"type": other.get(rows[at]["type"], rows[at]["type"])}
        elif kind == "period":
            name = draw(st.sampled_from(["from", "to"]))
            rows[0] = rows[0] | {name: rows[0][name] + draw(st.integers(-9, 9))}
    return rows


def lacking(rows, chain, first, last):
    """Without these records of a chain, and without the decisions in them."""
    gone, offsets = set(), set()
    for number, row in enumerate(rows):
        if row["type"] == "record":
            record = opened(row["line"].encode()).record
            if record.chain == chain and first <= record.seq <= last:
                gone.add(number)
                offsets |= set(record.offsets())
    asked = ("decision", "beside")
    return [
        row
        for number, row in enumerate(rows)
        if number not in gone
        and not (
            row["type"] in asked
            and row["chain"] == chain
            and orjson.loads(row["line"])["offset"] in offsets
        )
    ]


@settings(max_examples=150, deadline=None)
@given(st.data(), STEPS, PERIOD)
def test_what_passes_is_all_there_is(data, steps, period):
    """Events come in order here: that is what the ends of an export rest on."""
    made, clock = service(steps, [0.0])
    since = 1000.0 + period[0]
    until = min(since + period[1], clock + 1.0)
    assume(since < until)
    rows = read(b"".join(Export(made.source(), since, until).rows()))
    rows = data.draw(tampering(rows))
    report = checked(careful(rows))
    if not report.findings:
        decided, deeds = truth(made, rows[0]["from"], rows[0]["to"])
        assert told(rows)[0] == decided
        assert told(rows)[1] == deeds or report.notes
