"""One incident: what it is, who is behind it, what its events share, and what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from monitor.admin.people import Role
from monitor.console import charts, parts, words
from monitor.console.incidents import called, senders, size
from monitor.console.life import address
from monitor.console.review import ReviewDialog
from monitor.console.site import Failure, Visit, say, tag
from monitor.core.desk import HeldFilter, ReviewStatus
from monitor.core.runbooks import runbook

EVERY_SECONDS = 4.0
Account = Mapping[str, Any]


def build(visit: Visit, identifier: str) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    page = _Incident(visit, identifier)

    async def load() -> None:
        await page.load()
        ui.timer(EVERY_SECONDS, page.again)

    return load


class _Incident:
    def __init__(self, visit: Visit, identifier: str) -> None:
        self._visit = visit
        self._identifier = identifier
        self._shown: Account = {}
        self._dialog = None if visit.site.desk is None else ReviewDialog(visit, self.again)
        parts.link("← Incidents", "/incidents", "small")
        self._box = parts.div("stack").style("margin-top: 8px")
        with self._box:
            parts.empty("The incident is being read …")

    async def load(self) -> None:
        """Read it. Raises Failure."""
        found = (await self._visit.incidents()).get(self._identifier)
        if found is None:
            self._box.clear()
            with self._box:
                parts.heading("Incident")
                said = "No such incident is known here (any more): closed ones are forgotten late."
                tag(parts.text(said, "note"), "incident-gone")
            return
        if found == self._shown:
            return
        self._shown = found
        self._box.clear()
        with self._box:
            self._head(found)
            _tiles(found)
            with parts.div("grid2"):
                with parts.div("stack"):
                    self._account(found)
                    self._course(found)
                    self._evidence(found)
                with parts.div("stack"):
                    self._sources(found)
                    _common(found)
                    _spoken(found)

    async def again(self) -> None:
        """Read it once more; a failure is told at the bottom of the page."""
        try:
            await self.load()
        except Failure as error:
            say(error)

    def _head(self, found: Account) -> None:
        with parts.div("spread"):
            with parts.div("flow"):
                tag(parts.text(called(found), "break", "h1"), "incident-title")
                tag(parts.chip(found["state"]), "incident-state-chip")
                parts.text(found["id"], "muted mono")
            if self._dialog is None or found["kind"] == "data_fault":
                return
            with parts.div("flow"):
                for verb, title, colour in (
                    ("release", "Release all …", "positive"),
                    ("confirm", "Confirm all …", "negative"),
                ):
                    made = ui.button(title, on_click=lambda verb=verb: self._review(verb))
                    tag(made.props(f"unelevated color={colour}"), f"incident-{verb}")
                    if not self._visit.may(Role.OPERATOR):
                        made.disable()

    async def _review(self, verb: str) -> None:
        if self._dialog is not None and self._visit.may(Role.OPERATOR):
            chosen = HeldFilter(incident=self._shown["id"], status=ReviewStatus.OPEN)
            await self._dialog.ask(verb, chosen)

    def _account(self, found: Account) -> None:
        with parts.div("card"), parts.div("stack"):
            parts.text("What it is", kind="h2")
            tag(parts.text(found["text"], "break"), "incident-text")
            with parts.div("muted small break"):
                parts.text("What to do: ", kind="span")
                page = runbook(str(found["kind"]), str(found["family"]))
                tag(parts.text(page, "mono", "span"), "incident-runbook")

    def _course(self, found: Account) -> None:
        told = found.get("timeline") or {}
        if not any(told.get("events", ())):
            return
        with parts.div("card"):
            parts.text("When its events came", kind="h2")
            chart = charts.timeline(self._visit.dark, told)
            tag(chart, "incident-timeline")
            self._visit.on_dark.append(lambda dark: charts.recolour(chart, dark))
            width = (
                f"{told['seconds']:,.0f} s"
                if told["seconds"] < 120
                else (f"{told['seconds'] / 60:,.0f} min")
            )
            parts.text(f"A bar for each {width}, by the events' own time (UTC).", "muted small")

    def _evidence(self, found: Account) -> None:
        if not found["evidence"]:
            return
        with parts.div("card"):
            with parts.div("spread"):
                parts.text("Evidence", kind="h2")
                with parts.div("flow"):
                    for part in {part["id"]: part for part in found["parts"]}:
                        query = urlencode({"incident": part})
                        made = parts.link("Its held events", f"/quarantine?{query}", "small")
                        tag(made, "incident-held")
                        made = parts.link("What it taught the model", f"/blast?{query}", "small")
                        tag(made, "incident-blast")
            parts.text("Its first events and its last.", "muted small")
            with parts.div("flow"):
                for name in found["evidence"]:
                    tag(parts.link(name, address(name), "mono break"), "incident-event")

    def _sources(self, found: Account) -> None:
        rows = found["sources"]["top"]
        if not rows:
            return
        with tag(parts.div("card"), "incident-sources"):
            parts.text(f"Who sent them: about {senders(found)}", kind="h2")
            most = max(one["events"] for one in rows)
            with parts.div("bars"):
                for one in rows:
                    query = urlencode({"source": one["source"]})
                    made = parts.link(one["source"], f"/quarantine?{query}", "k")
                    made.props["title"] = one["source"]
                    with parts.div("track"):
                        share = 100 * one["events"] / most
                        parts.div("fill quarantine").style(f"width: {share:.1f}%")
                    parts.text(words.count(one["events"]), "n")


def _tiles(found: Account) -> None:
    first, last = found["first"]["ts"], found["last"]["ts"]
    shown = (
        ("Events", words.count(size(found)), f"first {words.clock(first)}"),
        ("Held", words.count(found["quarantined"]), "verdict quarantine"),
        ("Flagged", words.count(found["flagged"]), f"last {words.clock(last)}"),
        ("Sources", words.count(found["sources"]["estimate"]), "estimated"),
        ("Influence", words.short(round(found["influence"])), "in ordinary events"),
        ("Sure", words.share(round(found["confidence"], 2)), words.family(found["kind"])),
    )
    with parts.div("tiles"):
        for title, value, below in shown:
            with parts.div("tile"):
                parts.text(title, "l")
                tag(parts.text(value, "v"), f"incident-tile-{title.lower()}")
                parts.text(below, "d").props["title"] = below


def _common(found: Account) -> None:
    common = found["common"]
    with tag(parts.div("card"), "incident-common"):
        parts.text("What they share", kind="h2")
        rows = [(f"{f['from']} → {f['to']}", f["events"]) for f in common.get("flips", ())]
        rows += [(f"label {one['label']}", one["events"]) for one in found["labels"]]
        rows += [(f"about {one['subject']}", one["events"]) for one in common.get("subjects", ())]
        parts.bars((name, n, words.count(n)) for name, n in rows)
        if common.get("pattern"):
            parts.text("The pattern that comes with the label", kind="h3").style("margin-top: 16px")
            parts.facts((part["feature"], _value(part)) for part in common["pattern"])
        if not rows and not common.get("pattern"):
            parts.text("Nothing but the time.", "muted")


def _value(part: Mapping[str, Any]) -> str:
    if part["value"] is not None:
        return f"about {words.plain(part['value'])}"
    return f"one value, {part['normal_score']:+.1f} deviations from the middle"


def _spoken(found: Account) -> None:
    if found["families"]:
        with parts.div("card"):
            parts.text("Which families speak against them", kind="h2")
            parts.counted(found["families"], "quarantine")
