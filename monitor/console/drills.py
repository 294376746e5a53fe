"""Drills: try an attack on a copy of the state, and see what would have been caught."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from monitor.admin.people import Role
from monitor.console import parts, words
from monitor.console.site import Failure, Visit, done, say, tag
from monitor.core.drill import ATTACK_OF, Drill, DrillPlan, DrillState
from monitor.core.errors import UsageError

EVERY_SECONDS = 2.0
SENT_BY = {"5": "5 made-up accounts", "20": "20 made-up accounts", "ordinary": "ordinary accounts",
           "fresh": "a new account each", "hijacked": "hijacked accounts"}  # fmt: skip
WHY = "A drill from the console"


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    page = _Drills(visit)

    async def load() -> None:
        await page.read()
        ui.timer(EVERY_SECONDS, page.again)

    return load


class _Drills:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._shown: list[Drill] = []
        said = "Marked attacks on a copy of the state. Nothing of them is accepted or learned."
        parts.heading("Drills", said)
        with parts.div("grid2"):
            with parts.div("stack"), parts.div("card"):
                parts.text("The latest drills", kind="h2")
                self._rows = tag(parts.div("list"), "drills")
                with self._rows:
                    parts.empty("Drills are being read …")
            with parts.div("stack"):
                self._form()
                with tag(parts.div("card"), "drill-recall"):
                    parts.text("Recall by family", kind="h2")
                    parts.text("Share of the canaries that were held, latest drill.", "muted small")
                    self._recall = parts.div()

    def _form(self) -> None:
        families = {family.value: words.family(family.value) for family in ATTACK_OF}
        with parts.div("card"), parts.div("stack"):
            parts.text("Start one", kind="h2")
            self._family = tag(
                ui.select(families, label="Family", value="backdoor").props("outlined dense"),
                "drill-family",
            )
            self._sources = ui.select(SENT_BY, label="Sent by", value="5").props("outlined dense")
            with parts.div("half"):
                self._rate = _number("Canaries a second", 2.0, "drill-rate")
                self._seconds = _number("Seconds", 30.0, "drill-seconds")
            self._why = ui.input("Reason, for the audit trail").props(
                "outlined dense maxlength=500"
            )
            made = ui.button("Start the drill", on_click=self._start)
            self._go = tag(made.props("unelevated color=primary"), "drill-start")
            if not self._visit.may(Role.OPERATOR):
                self._go.disable()

    async def _start(self) -> None:
        try:
            plan = DrillPlan(
                str(self._family.value),
                rate_per_second=float(self._rate.value or 0.0),
                seconds=float(self._seconds.value or 0.0),
                sources=str(self._sources.value),
            )
        except UsageError as error:
            say(Failure(f"{str(error)[:1].upper()}{str(error)[1:]}."))
            return
        try:
            who, why = self._visit.now(Role.OPERATOR), str(self._why.value or "").strip() or WHY
            await self._visit.call(self._visit.desk.drills.start, plan, who=who, why=why)
            done("The drill has begun.")
            await self.read()
        except Failure as error:
            say(error)

    async def _stop(self, drill: Drill) -> None:
        try:
            who = self._visit.now(Role.OPERATOR)
            await self._visit.call(self._visit.desk.drills.stop, drill.id, who=who)
            await self.read()
        except Failure as error:
            say(error)

    async def again(self) -> None:
        """Read them once more; a failure is told at the bottom of the page."""
        try:
            await self.read()
        except Failure as error:
            say(error)

    async def read(self) -> None:
        """Show the latest drills. Raises Failure."""
        found = list(await self._visit.call(self._visit.desk.drills.list))
        if found == self._shown and found:
            return
        self._shown = found
        self._rows.clear()
        with self._rows:
            if not found:
                parts.empty("No drill has run on this instance yet.")
            for drill in found:
                self._row(drill)
        self._recall.clear()
        with self._recall:
            _by_family(found)

    def _row(self, drill: Drill) -> None:
        with tag(parts.div("item drill"), "drill-row"):
            parts.chip(drill.state.value, _colour(drill.state))
            with parts.div("break"):
                parts.text(f"{words.family(drill.plan.family).capitalize()}: {_outcome(drill)}")
                by = f"{drill.who}, {words.clock(drill.started_at)} UTC: {drill.why}"
                parts.text(by, "muted small")
                if drill.note:
                    parts.text(drill.note, "muted small")
            parts.text("–" if drill.recall is None else words.share(drill.recall), "num")
            if drill.state is DrillState.RUNNING and self._visit.may(Role.OPERATOR):
                made = ui.button("Stop", on_click=lambda: self._stop(drill)).props("flat dense")
                tag(made, "drill-stop")


def _number(title: str, value: float, name: str) -> Any:
    return tag(ui.number(title, value=value, min=0).props("outlined dense"), name)


def _colour(state: DrillState) -> str:
    colours = {DrillState.RUNNING: "open", DrillState.DONE: "accept", DrillState.FAILED: "rejected"}
    return colours.get(state, "")


def _outcome(drill: Drill) -> str:
    said = f"{words.count(drill.held)} of {words.count(drill.sent)} canaries held"
    if drill.flagged:
        said += f", {words.count(drill.flagged)} flagged"
    if drill.delay_events is not None:
        said += f", the first after {words.count(drill.delay_events)} events"
    return said


def _by_family(found: list[Drill]) -> None:
    latest: dict[str, Drill] = {}
    for drill in found:  # the latest first
        if drill.recall is not None and drill.state is not DrillState.RUNNING:
            latest.setdefault(drill.plan.family, drill)
    if not latest:
        parts.text("Not known before the first drill.", "muted")
        return
    for family, drill in sorted(latest.items()):
        recall = drill.recall or 0.0
        with parts.div("gauge"):
            parts.text(words.family(family), "k")
            with parts.div("track"):
                parts.div("fill").style(f"width: {100 * recall:.1f}%")
            parts.text(words.share(recall), "n")
