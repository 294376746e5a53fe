"""The policy's versions: who changed what and why, what waits, and the way back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui

from monitor.admin.people import Role
from monitor.config.policy_diff import brought_back
from monitor.console import changing, parts, words
from monitor.console.site import Failure, Visit, done, say, tag, tell
from monitor.core.desk import Change, Difference

PAGE = 20
KINDS = {"start": "first start", "edit": "edit", "rollback": "rollback", "expiry": "expiry",
         "review": "from reviews"}  # fmt: skip


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    return _History(visit).load


def version_of(text: str) -> int | None:
    """The version that an address asks for, None for the latest.

    Examples
    --------
    >>> version_of("7"), version_of(""), version_of("-1"), version_of("9" * 99)
    (7, None, None, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


class _History:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._now: Change | None = None
        self._last: int | None = None
        self._target = 0
        self._upto = version_of(visit.connection.query_params.get("version", ""))
        with parts.div("spread headline"):
            parts.heading("Policy", "Every version, who made it and why.")
            # Where there is no room for it in the navigation, the way to it is here.
            parts.link("Signing keys", "/keys", "small")
        with parts.div("stack"):
            self._conflict = tag(parts.text("", "note warn"), "conflict").props("role=alert")
            self._conflict.set_visibility(False)
            with parts.div("card"):
                parts.text("Replicas", kind="h2")
                self._applied = tag(parts.div("flow"), "applied")
            self._waiting = tag(parts.div("card"), "waiting")
            self._waiting.set_visibility(False)
            with parts.div("card"):
                with parts.div("spread"):
                    parts.text("Versions", kind="h2")
                    if self._upto is not None:
                        tag(parts.link("Show the latest", "/policy", "small"), "history-latest")
                self._list = tag(parts.div("list"), "history")
                with self._list:
                    parts.empty("The history is being read …")
                made = ui.button("Older versions", on_click=self._older).props("flat")
                self._more = tag(made, "history-older")
                self._more.set_visibility(False)
        self._make_dialog()

    def _make_dialog(self) -> None:
        with ui.dialog() as self._dialog, ui.card(), parts.div("stack").style("width: 100%"):
            self._title = parts.text("", kind="h2")
            self._changes = tag(parts.div(), "rollback-diff")
            self._why = ui.input("Reason, for the history").props(
                "outlined dense autofocus maxlength=500"
            )
            tag(self._why, "rollback-reason").style("width: 100%")
            self._why.on("keydown.enter", self._roll_back)
            with parts.div("flow").style("justify-content: flex-end"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat")
                made = ui.button("Roll back", on_click=self._roll_back)
                self._go = tag(made.props("unelevated color=primary"), "rollback-go")
        tag(self._dialog, "rollback-dialog")

    async def load(self) -> None:
        """Read the history from its end. Raises Failure."""
        visit, policy = self._visit, self._visit.desk.policy
        self._now = await visit.call(policy.current)
        before = None if self._upto is None else self._upto + 1
        versions = list(await visit.call(policy.history, PAGE, before))
        waiting = list(await visit.call(policy.waiting))
        self._list.clear()
        self._last = None
        with self._list:
            if not versions:
                parts.empty("There is no version of this number (any more).")
        self._show(versions)
        await self._show_applied()
        await self._show_waiting(waiting)

    async def _again(self) -> None:
        try:
            await self.load()
        except Failure as error:
            say(error)

    async def _show_applied(self) -> None:
        assert self._now is not None
        applied = list(await self._visit.call(self._visit.desk.policy.applied))
        self._applied.clear()
        with self._applied:
            if not applied:
                parts.text("No replica has said by which version it judges.", "muted")
            for one in applied:
                there = one.version >= self._now.version
                said = f"{one.instance}: version {one.version}"
                made = parts.chip(said, "applied" if there else "waiting")
                made.props["title"] = f"since {words.clock(one.when)} UTC"

    def _show(self, versions: list[Change]) -> None:
        with self._list:
            for change in versions:
                self._version(change)
        if versions:
            self._last = versions[-1].version
        self._more.set_visibility(len(versions) == PAGE and (self._last or 0) > 1)

    def _version(self, change: Change) -> None:
        assert self._now is not None
        with parts.div("item version") as row:
            tag(row, f"version-{change.version}")
            parts.text(f"v{change.version}", "num").style("font-weight: 600")
            with parts.div("break"):
                parts.text(change.why or "No reason given.")
                kind = KINDS.get(change.kind, change.kind)
                said = f"{change.who}, {words.clock(change.when)} UTC, {kind}"
                if change.approved_by:
                    said += f", approved by {change.approved_by}"
                parts.text(said, "muted small")
                diff = parts.div()
            with parts.div("acts"):
                if change.version == self._now.version:
                    parts.chip("in force", "applied")
                if change.version > 1:
                    made = ui.button("What changed", on_click=lambda: self._diff(change, diff))
                    tag(made.props("flat dense"), f"diff-{change.version}")
                if change.version != self._now.version and self._visit.may(Role.OPERATOR):
                    made = ui.button("Roll back to this", on_click=lambda: self._ask(change))
                    tag(made.props("flat dense"), f"rollback-{change.version}")

    async def _diff(self, change: Change, box: ui.element) -> None:
        if list(box):
            box.clear()
            return
        try:
            base = change.base or change.version - 1
            found = await self._visit.call(self._visit.desk.policy.diff, base, change.version)
        except Failure as error:
            say(error)
            return
        with box:
            parts.differences(found)

    async def _older(self) -> None:
        try:
            history = self._visit.desk.policy.history
            self._show(list(await self._visit.call(history, PAGE, self._last)))
        except Failure as error:
            say(error)

    async def _ask(self, change: Change) -> None:
        assert self._now is not None
        self._target = change.version
        base, policy = self._now.version, self._visit.desk.policy
        try:
            differing = await self._visit.call(policy.diff, base, change.version)
            found = brought_back(differing)
            if not found and (await self._visit.call(policy.current)).version == base:
                kept = " but keys and the rules for sources, which stay" if differing else ""
                tell(f"Nothing differs from version {change.version}{kept}: no version was made.")
                return
        except Failure as error:
            say(error)
            return
        self._title.say(f"Roll back to version {change.version}")
        self._changes.clear()
        with self._changes:
            parts.differences(found)
        self._why.set_value(f"Back to version {change.version}")
        self._dialog.open()

    async def _roll_back(self) -> None:
        assert self._now is not None
        why = changing.reason(self._why)
        if not why:
            return
        self._go.disable()
        try:
            who = self._visit.now(Role.OPERATOR)
            change = await self._visit.call(
                self._visit.desk.policy.rollback,
                self._target, base=self._now.version, who=who, why=why,
            )  # fmt: skip
        except Failure as error:
            self._conflict.say(str(error))
            self._conflict.set_visibility(True)
        else:
            self._conflict.set_visibility(False)
            waits = change.state == "waiting"
            done(
                f"Version {change.version} {'waits for a second person' if waits else 'holds now'}."
                " Keys and the rules for sources were left as they are."
            )
        finally:
            self._go.enable()
        self._dialog.close()
        await self._again()

    async def _show_waiting(self, waiting: list[Change]) -> None:
        """Each with what it would change, for nobody should approve what they have not seen."""
        changes = [await self._would_change(change) for change in waiting]
        self._waiting.set_visibility(bool(waiting))
        self._waiting.clear()
        with self._waiting:
            parts.text("Waiting for a second person", kind="h2")
            for change, found in zip(waiting, changes, strict=True):
                self._one_waiting(change, found)

    async def _would_change(self, change: Change) -> Sequence[Difference] | str:
        try:
            return await self._visit.call(self._visit.desk.policy.preview, change.policy)
        except Failure as error:
            return str(error)

    def _one_waiting(self, change: Change, found: Sequence[Difference] | str) -> None:
        may = self._visit.may(Role.OPERATOR)
        mine = change.who == self._visit.person.name
        with parts.div("item version"):
            parts.text(f"v{change.version}", "num").style("font-weight: 600")
            with parts.div("break"):
                parts.text(change.why or "No reason given.")
                parts.text(f"{change.who}, {words.clock(change.when)} UTC", "muted small")
                if isinstance(found, str):
                    parts.text(found, "note warn")
                else:
                    parts.differences(found)
                why = ui.input("Reason, to reject it").props("outlined dense maxlength=500")
                tag(why, f"why-{change.proposal}").style("margin-top: 8px")
                why.set_enabled(may)
                if mine:
                    parts.text("Somebody else has to approve what you proposed.", "muted small")
            with parts.div("acts"):
                made = ui.button("Approve", on_click=lambda: self._approve(change))
                made.props("unelevated dense color=primary")
                tag(made, f"approve-{change.proposal}").set_enabled(may and not mine)
                made = ui.button("Reject", on_click=lambda: self._reject(change, why))
                tag(made.props("flat dense"), f"reject-{change.proposal}").set_enabled(may)

    async def _approve(self, change: Change) -> None:
        try:
            who = self._visit.now(Role.OPERATOR)
            made = await self._visit.call(self._visit.desk.policy.approve, change.proposal, who=who)
            done(f"Version {made.version} holds now.")
        except Failure as error:
            say(error)
        await self._again()

    async def _reject(self, change: Change, field: ui.input) -> None:
        why = changing.reason(field)
        if not why:
            return
        try:
            who = self._visit.now(Role.OPERATOR)
            reject = self._visit.desk.policy.reject
            await self._visit.call(reject, change.proposal, who=who, why=why)
            done("Rejected; nothing was changed.")
        except Failure as error:
            say(error)
        await self._again()
