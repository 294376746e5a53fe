"""Thresholds: drag a line, see at once what it would have held, apply it with a reason."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nicegui import events, ui

from monitor.admin.people import Role
from monitor.console import changing, charts, parts, words
from monitor.console.site import Failure, Visit, done, say, tag
from monitor.console.whatif import WhatIfView
from monitor.core.desk import Change, ConflictError

BINS = 60
REPORTS, REPORT_SECONDS = 20, 0.25
LARGEST, LEAST = 0.5, 1e-12


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    return _Thresholds(visit).load


class _Thresholds:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._now: Change | None = None
        self._wanted: dict[str, float] = {}
        self._top = 8.0
        self._asked = 0
        self._asking = False
        visit.on_dark.append(lambda dark: charts.recolour(self._chart, dark))
        parts.heading(
            "Thresholds", "Drag a line. Beside it stands what it would have done to recent events."
        )
        self._conflict = changing.Conflict(self._reload)
        with parts.div("grid2"):
            with parts.div("stack"):
                self._plot()
                self._apply_card()
            with parts.div("card"), parts.div("stack"):
                self._view = WhatIfView()
        ui.on("thresholds", self._dragged)

    def _plot(self) -> None:
        with parts.div("card"):
            with parts.div("spread"):
                parts.text("Recent events by risk", kind="h2")
                self._events = parts.text(" ", "muted small num")
            said = "Risk to the right: 3 means that one of 1,000 honest events looks like that."
            parts.text(said, "muted small")
            with parts.div("plot"):
                self._chart = charts.histogram(self._visit.dark).classes("echart")
                self._chart.props["aria-hidden"] = "true"
                with parts.div("zones") as zones:
                    zones.props["data-max"] = self._top
                    self._ticks = parts.div("ticks")
                    parts.div("zone flag")
                    parts.div("zone quarantine")
                    _line("flag", "Flag")
                    _line("quarantine", "Hold")

    def _apply_card(self) -> None:
        with parts.div("card"), parts.div("stack"):
            parts.text("Shares of honest events you are willing to pay", kind="h2")
            with parts.div("half"):
                self._fields = {
                    "flag": self._field("flag", "Flag at (per cent)"),
                    "quarantine": self._field("quarantine", "Hold at (per cent)"),
                }
            self._why = ui.input("Reason, for the history").props("outlined dense maxlength=500")
            tag(self._why, "reason")
            self._why.on("keydown.enter", self._apply)
            with parts.div("flow"):
                made = ui.button("Apply", on_click=self._apply).props("unelevated color=primary")
                self._button = tag(made, "apply")
                made = ui.button("Back to the present", on_click=self._reset).props("flat")
                tag(made, "reset")
                self._state = tag(parts.text("", "muted small"), "apply-state")
                self._state.props["aria-live"] = "polite"
            if not self._visit.may(Role.OPERATOR):
                self._button.disable()
                self._state.say("Changing the policy takes the role operator.")

    def _field(self, name: str, title: str) -> ui.number:
        field = ui.number(title, min=1e-10, max=50, format="%.6g", step=0.01)
        field.props("outlined dense").on_value_change(self._typed)
        return tag(field, f"field-{name}")  # type: ignore[no-any-return]

    async def load(self) -> None:
        """Read the policy and the histogram. Raises Failure."""
        visit = self._visit
        self._now = await visit.call(visit.desk.policy.current)
        await self._histogram()
        await self._reset()

    async def _histogram(self) -> None:
        visit = self._visit
        risks = await visit.call(visit.desk.policy.risks, BINS)
        self._top = float(risks["edges"][-1])
        self._events.say(f"{words.count(risks.get('events', _total(risks)))} events")
        charts.fill_histogram(self._chart, risks, visit.dark)
        self._ticks.clear()
        with self._ticks:
            step = max(1, round(self._top / 8))
            for risk in range(0, int(self._top) + 1, step):
                parts.text(str(risk), kind="span").style(f"left: {100 * risk / self._top:.2f}%")

    async def _reset(self) -> None:
        assert self._now is not None
        policy = self._now.policy
        await self._want(float(policy["flag_at"]), float(policy["quarantine_at"]))

    async def _want(self, flag: float, quarantine: float, *, lines: bool = True) -> None:
        """Show these shares everywhere, and what they would do."""
        flag = min(LARGEST, max(LEAST, flag))
        quarantine = min(flag, max(LEAST, quarantine))
        self._wanted = {"flag": flag, "quarantine": quarantine}
        for name, value in self._wanted.items():
            self._fields[name].set_value(float(f"{100 * value:.4g}"))
        if lines:
            ui.run_javascript(
                f"monitorLines({json.dumps(flag)}, {json.dumps(quarantine)}, {self._top})"
            )
        await self._ask()

    async def _typed(self) -> None:
        if self._now is None:
            return
        flag, quarantine = (self._fields[name].value for name in ("flag", "quarantine"))
        if not flag or not quarantine or flag <= 0 or quarantine <= 0:
            return
        wanted = {"flag": flag / 100, "quarantine": quarantine / 100}
        if all(math.isclose(wanted[name], self._wanted[name], rel_tol=1e-3) for name in wanted):
            # What the lines have set; nobody typed.
            return
        self._wanted = wanted
        ui.run_javascript(f"monitorLines({flag / 100}, {quarantine / 100}, {self._top})")
        await self._ask()

    async def _dragged(self, event: events.GenericEventArguments) -> None:
        try:
            flag, hold = float(event.args["flag"]), float(event.args["quarantine"])
        except (KeyError, TypeError, ValueError):
            return
        if self._now is not None and math.isfinite(flag) and math.isfinite(hold):
            await self._want(_rounded(flag), _rounded(hold), lines=False)

    def _document(self) -> dict[str, Any]:
        assert self._now is not None
        return dict(self._now.policy) | {
            "flag_at": self._wanted["flag"],
            "quarantine_at": self._wanted["quarantine"],
        }

    async def _ask(self) -> None:
        """What-if, one at a time: it takes the gate's own processor, and a line that is dragged
        asks faster than it is answered. Once answered, what is wanted by then is asked next.
        """
        self._asked += 1
        self._view.wait()
        if self._asking:
            return
        self._asking = True
        try:
            answered = 0
            while answered != self._asked:
                answered = self._asked
                await self._ask_once()
                if answered != self._asked:
                    self._view.wait()
        finally:
            self._asking = False

    async def _ask_once(self) -> None:
        try:
            found = await self._visit.call(self._visit.desk.policy.whatif, self._document())
        except Failure as error:
            self._view.fail(str(error))
        else:
            self._view.show(found)

    async def _apply(self) -> None:
        if self._now is None:
            return
        why = changing.reason(self._why)
        if not why:
            return
        self._button.disable()
        self._state.say("Applying …")
        try:
            who = self._visit.now(Role.OPERATOR)
            change = await self._visit.call(
                self._visit.desk.policy.propose,
                self._document(), base=self._now.version, who=who, why=why,
            )  # fmt: skip
            await self._applied(change)
        except Failure as error:
            self._state.say("Nothing was changed.")
            if isinstance(error.cause, ConflictError):
                self._conflict.show(str(error))
            else:
                say(error)
        finally:
            self._button.enable()

    async def _applied(self, change: Change) -> None:
        if change.state == "waiting":
            self._state.say(f"Version {change.version} waits for a second person.")
            done("Proposed. A second person has to approve it, on the page Policy.")
            return
        self._now = change
        self._why.set_value("")
        self._conflict.hide()
        self._state.say(f"Version {change.version} holds.")
        done(f"Version {change.version} holds now.")
        await self._replicas(change.version)
        await self._histogram()
        await self._ask()

    async def _replicas(self, version: int) -> None:
        """Say how many judge by it, until all do or one is late."""
        for _ in range(REPORTS):
            applied = await self._visit.call(self._visit.desk.policy.applied)
            there = sum(one.version >= version for one in applied)
            self._state.say(
                f"Version {version} holds; {there} of {len(applied)} replicas report it."
            )
            if there == len(applied):
                return
            await asyncio.sleep(REPORT_SECONDS)

    async def _reload(self) -> None:
        self._conflict.hide()
        self._state.say("")
        try:
            await self.load()
        except Failure as error:
            say(error)


def _rounded(share: float) -> float:
    """To what people would type."""
    return float(f"{share:.2g}")


def _total(risks: Mapping[str, Any]) -> int:
    return sum(sum(counts) for counts in risks["counts"].values())


def _line(name: str, title: str) -> None:
    with parts.div(f"line {name}") as line:
        tag(line, f"line-{name}")
        line.props["data-name"] = name
        line.props["data-title"] = title
        line.props["data-risk"] = "0"
        line.props["tabindex"] = "0"
        line.props["role"] = "slider"
        line.props["aria-label"] = f"{title} at this risk"
        line.props["aria-valuemin"] = "0.3"
        line.props["aria-valuemax"] = "12"
        with parts.div("tag"):
            parts.text(title, kind="span")
