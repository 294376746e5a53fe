"""Release and confirm: first what it would do, then a reason, then it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from monitor.admin.people import Role
from monitor.console import changing, parts, words
from monitor.console.site import Failure, Visit, done, say, tag
from monitor.core.desk import HeldFilter, ReviewOutcome

TITLES = {"release": "Release to the learner", "confirm": "Confirm as poison"}
SENTENCES = {
    "release": "The original bytes go to the learner's topic, each exactly once. "
    "They count as false alarms.",
    "confirm": "They stay away from the learner, and count against their sources from now on.",
}
MOST = 6


class ReviewDialog:
    """A dialog for one verb on chosen events.

    Parameters
    ----------
    visit
        The page.
    finished
        Asked after something was changed.
    """

    def __init__(self, visit: Visit, finished: Callable[[], Awaitable[None]]) -> None:
        self._visit = visit
        self._finished = finished
        self._chosen: HeldFilter | None = None
        self._verb = ""
        with ui.dialog() as self._dialog, ui.card(), parts.div("stack") as inner:
            inner.style("width: 100%")
            self._title = parts.text("", kind="h2")
            self._sentence = parts.text("", "muted")
            self._box = tag(parts.div("stack"), "dry-run")
            self._why = ui.input("Reason, for the audit trail")
            self._why.props("outlined dense autofocus maxlength=500").style("width: 100%")
            tag(self._why, "review-reason")
            self._why.on("keydown.enter", self._go)
            with parts.div("flow").style("justify-content: flex-end"):
                made = ui.button("Cancel", on_click=self._dialog.close).props("flat")
                tag(made, "review-cancel")
                self._button = ui.button("", on_click=self._go).props("unelevated color=primary")
                tag(self._button, "review-go")
        tag(self._dialog, "dry-run-dialog")
        visit.dialogs.append(self._dialog)

    async def ask(self, verb: str, chosen: HeldFilter) -> None:
        """Say what ``verb`` would do to ``chosen``, and ask for a reason."""
        self._verb, self._chosen = verb, chosen
        self._title.say(TITLES[verb])
        self._sentence.say(SENTENCES[verb])
        self._why.set_value("")
        self._why.props(remove="error error-message")
        self._button.disable()
        self._button.set_text("Counting …")
        self._box.clear()
        self._dialog.open()
        try:
            outcome = await self._call(dry_run=True)
        except Failure as error:
            with self._box:
                parts.text(str(error), "note bad")
            self._button.set_text("Nothing to do")
            return
        self._show(outcome)

    async def _call(self, *, dry_run: bool) -> ReviewOutcome:
        assert self._chosen is not None
        quarantine = self._visit.desk.quarantine
        work = quarantine.release if self._verb == "release" else quarantine.confirm
        who = self._visit.now(Role.OPERATOR)
        why = "dry run" if dry_run else (self._why.value or "").strip()
        return await self._visit.call(work, self._chosen, who=who, why=why, dry_run=dry_run)

    def _show(self, outcome: ReviewOutcome) -> None:
        n = len(outcome.done)
        word = self._verb.capitalize()
        self._button.set_text(f"{word} {words.count(n)} event{'s' if n != 1 else ''}")
        with self._box:
            said = (
                f"{words.count(n)} would be {self._verb}{'d' if self._verb == 'release' else 'ed'}"
            )
            if outcome.already:
                said += f", {words.count(len(outcome.already))} were before"
            if outcome.refused:
                said += f", {words.count(len(outcome.refused))} cannot be"
            tag(parts.text(f"{said}."), "dry-run-sum")
            if outcome.by_source:
                with parts.div():
                    parts.text("By source", kind="h3")
                    parts.counted(outcome.by_source, most=MOST)
            if outcome.by_label:
                with parts.div():
                    parts.text("By label", kind="h3")
                    parts.counted(outcome.by_label, most=MOST)
            for key, why in list(outcome.refused.items())[:MOST]:
                parts.text(f"{key}: {why}", "small c-flag break")
        if n:
            self._button.enable()
        self._why.run_method("focus")

    async def _go(self) -> None:
        if not self._button.enabled:
            return
        if not changing.reason(self._why):
            return
        self._button.disable()
        try:
            outcome = await self._call(dry_run=False)
        except Failure as error:
            say(error)
            self._button.enable()
            return
        self._dialog.close()
        past = "released" if self._verb == "release" else "confirmed as poison"
        done(f"{words.count(len(outcome.done))} {past}.")
        await self._finished()
