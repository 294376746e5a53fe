"""Whether a simulated or real service's audit chains are whole: a check for other tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from monitor.state.audit import opened
from monitor.state.audit_links import Entry, check_links
from monitor.state.audit_match import DecisionCheck, Expected

Output = Iterable[tuple[int, int, bytes]]


def chains_whole(audit: Output, decisions: Output) -> int:
    """Assert it of records in the order in which they were written; how many decisions it covers.

    Both are (partition, offset, bytes), the offset unused.
    """
    lines, records = defaultdict(list), defaultdict(list)
    for partition, _, line in audit:
        lines[partition].append(opened(line))
    for partition, _, record in decisions:
        records[partition].append(record)
    assert set(lines) == set(records)
    for partition, found in lines.items():
        links = check_links(f"{partition}", [Entry.of(one, i) for i, one in enumerate(found)])
        assert links.findings == []
        assert len(links.runs) == 1
        check = DecisionCheck(f"{partition}", (Expected.of(one.record) for one in found))
        check.feed(records[partition])
        check.finish()
        assert check.findings == []
        assert (check.checked, check.uncovered) == (len(records[partition]), 0)
    return sum(map(len, records.values()))
