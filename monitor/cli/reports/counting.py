"""One pass over decision records: what happened in a time, and what was an incident's share."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from monitor.cli.report_data import ACCEPT, FLAG, QUARANTINE, WORDS, Sample, Tally, label_text
from monitor.cli.reports.facts import Passed, Record, Traffic, seconds_of
from monitor.decide.incident_facts import short

STEPS = 120
KEPT, TOLD, OF_ONE = 250, 25, 3
"""Riskiest events that are kept, told, and told of one source."""
PASSED_TOLD = 20
SOURCES = 15
THEIRS = 0.5
"""Share of an incident's events that hostile sources sent, from which on it is theirs."""
MOST_SOURCES, LEAST_OF_SOURCE = 10_000, 2
FIELDS = (
    "id", "ts", "source", "label", "verdict", "action", "risk", "families", "reasons", "incident",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Of:
    """Whose events are the incident's: its identifiers, sources that may be its, when it began."""

    ids: frozenset[str]
    sources: frozenset[str]
    began: float

    @classmethod
    def incident(
        cls,
        account: Mapping[str, Any],
        merged: Iterable[str] = (),
        sent: Mapping[str, int] | None = None,
    ) -> Of:
        """Of an incident's account.

        Parameters
        ----------
        account
            It names its largest sources only.
        merged
            Incidents that became part of it.
        sent
            By source, how many of its events that sent, where all of them are known.
        """
        ids = {account["id"], *(part["id"] for part in account.get("parts", ())), *merged}
        rows = {row["source"]: row["events"] for row in account["sources"]["top"]}
        known = rows if sent is None else sent
        ranked = sorted(known, key=lambda name: (-known[name], name))[:MOST_SOURCES]
        some = frozenset(name for name in ranked if known[name] >= LEAST_OF_SOURCE)
        return cls(frozenset(ids), some, float(account["first"]["ts"]))


@dataclass(slots=True)
class _Sent:
    """What somebody sent: by verdict, and what of it passed before and after it was noticed."""

    counts: list[int] = field(default_factory=lambda: [0] * len(WORDS))
    before: int = 0
    after: int = 0
    flagged: int = 0
    told: list[tuple[int, Record]] = field(default_factory=list)
    mine: int = 0
    mine_passed: int = 0
    first: float | None = None
    since: int = 0
    suspicious: int = 0

    def take(self, record: Mapping[str, Any], verdict: int, passed: bool, late: bool) -> None:
        """Count one event."""
        self.counts[verdict] += 1
        if not passed:
            return
        self.after += late
        self.before += not late
        self.flagged += verdict != ACCEPT
        if len(self.told) < PASSED_TOLD:
            self.told.append((int(record.get("line") or record.get("offset") or 0), _brief(record)))

    @property
    def sent(self) -> int:
        """All that it sent."""
        return sum(self.counts)

    @property
    def hostile(self) -> bool:
        """Whether most of what it sent since the incident began was suspicious."""
        return 2 * self.suspicious >= self.since > 0


class Counting:
    """Counts records given in the order of the stream.

    Parameters
    ----------
    start, end
        The time that is looked at, Unix seconds. An event without a time counts as of the one
        before it.
    of
        The incident's events, where the report is about one.
    whole
        Whether the records are all there were.
    """

    def __init__(
        self, start: float, end: float, of: Of | None = None, *, whole: bool = True
    ) -> None:
        self.start, self.end, self._of, self._whole = start, end, of, whole
        self.tally = Tally()
        self._step = max((end - start) / STEPS, 1e-9)
        self._bins = {name: [0] * STEPS for name in (*WORDS, "mine")}
        self._calm, self._mine, self._odd = Sample(1500), Sample(1500), Sample(1500)
        self._top: list[tuple[float, int, Record]] = []
        self._sources: dict[str, _Sent] = {}
        self._any = _Sent()
        self._now = start
        self._noticed: float | None = None
        self._line = 0

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one."""
        at = seconds_of(record.get("ts"))
        self._now = at = self._now if at is None else at
        self._line += 1
        mine = self._of is not None and record.get("incident") in self._of.ids
        if self._of is not None:
            self._follow(record, at, mine, self._of)
        if self.start <= at <= self.end:
            self._count(record, at, mine)

    def _count(self, record: Mapping[str, Any], at: float, mine: bool) -> None:
        verdict, risk = WORDS.index(record["verdict"]), float(record["risk"])
        self.tally.add(record, self._line)
        step = min(int((at - self.start) / self._step), STEPS - 1)
        self._bins[record["verdict"]][step] += 1
        self._bins["mine"][step] += mine
        point = (at, round(risk, 3), record["verdict"], mine)
        sample = self._mine if mine else self._calm if verdict == ACCEPT else self._odd
        if verdict in (ACCEPT, FLAG, QUARANTINE):
            sample.add(self._line, point)
        told = mine if self._of is not None else verdict in (FLAG, QUARANTINE)
        if told and not record.get("warmup"):
            item = (risk, -self._line, record)
            if len(self._top) < KEPT:
                heapq.heappush(self._top, (*item[:2], _brief(record)))
            elif item[:2] > self._top[0][:2]:
                heapq.heapreplace(self._top, (*item[:2], _brief(record)))

    def _follow(self, record: Mapping[str, Any], at: float, mine: bool, of: Of) -> None:
        """What the incident's sources sent, from the stream's beginning on."""
        source = short(str(record.get("source")))  # as an incident names it
        theirs = source in of.sources
        if not (mine or theirs):
            return
        verdict, passed = WORDS.index(record["verdict"]), record["action"] == "pass"
        if verdict == QUARANTINE and at >= of.began and not record.get("warmup"):
            self._noticed = at if self._noticed is None else self._noticed
        late = self._noticed is not None
        if mine:
            self._any.take(record, verdict, passed, late)
        if theirs:
            one = self._sources.setdefault(source, _Sent())
            one.take(record, verdict, passed, late)
            one.mine += mine
            one.mine_passed += mine and passed
            one.first = at if one.first is None else one.first
            if at >= of.began:
                one.since += 1
                one.suspicious += verdict in (FLAG, QUARANTINE)

    def traffic(self) -> Traffic:
        """What was counted."""
        tally, bins = self.tally, self._bins
        points = [*self._calm.points(), *self._odd.points(), *self._mine.points()]
        counted = tally.as_dict()
        if self._of is not None and self._of.sources:
            sources = self._of_incident()
        else:
            sources = [
                {"source": name, **dict(zip(WORDS, counts, strict=True))}
                for name, counts in tally.top_sources(SOURCES)
                if counts[QUARANTINE] or counts[FLAG]
            ]
        return Traffic(
            self._whole,
            counted["verdicts"],
            counted["families"],
            counted["classes"],
            counted["reject_codes"],
            sources,
            {"start": self.start, "step": self._step, **bins},
            sorted(points),
        )

    def _of_incident(self) -> list[Record]:
        some = self._sources.items()
        ranked = sorted(some, key=lambda item: (not item[1].hostile, -item[1].mine, item[0]))
        return [
            {
                "source": name,
                **dict(zip(WORDS, one.counts, strict=True)),
                "mine": one.mine,
                "passed_before": one.before,
                "passed_after": one.after,
                "first": one.first,
                "hostile": one.hostile,
            }
            for name, one in ranked[:SOURCES]
        ]

    def passed(self, *, hostile: bool = True) -> Passed:
        """What of the incident reached the learner; of a drift nobody is ``hostile``."""
        ring = [one for one in self._sources.values() if one.hostile and hostile]
        theirs = sum(one.mine for one in ring) >= THEIRS * max(self._any.sent, 1)
        some = ring if theirs else [self._any]
        others = self._any.before + self._any.after - sum(one.mine_passed for one in ring)
        told = sorted((item for one in some for item in one.told), key=lambda item: item[0])
        return Passed(
            "sources" if theirs else "incident",
            sum(one.before for one in some),
            sum(one.after for one in some),
            sum(one.flagged for one in some),
            self._noticed,
            [record for _, record in told[:PASSED_TOLD]],
            others if theirs else 0,
        )

    def evidence(self) -> list[Record]:
        """The riskiest events, riskiest first; of one source only a few, for they say the same."""
        found: list[Record] = []
        of: Counter[str] = Counter()
        for _, _, record in sorted(self._top, key=lambda item: (-item[0], -item[1])):
            of[str(record["source"])] += 1
            if of[str(record["source"])] <= OF_ONE and len(found) < TOLD:
                found.append(record)
        return found


def _brief(record: Mapping[str, Any]) -> Record:
    """A decision without what a report does not show."""
    brief = {name: record.get(name) for name in FIELDS}
    brief["label"] = label_text(record.get("label"))
    brief["reasons"] = [
        {name: reason.get(name) for name in ("detector", "p_value", "text")}
        for reason in record.get("reasons") or ()
    ]
    place = "line" if "line" in record else "offset"
    return brief | {"partition": record.get("partition"), place: record.get(place)}
