"""Revoking a key: first what it would do, then a reason, then it is done."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from nicegui import ui

from monitor.admin.desk_schemas import moment
from monitor.admin.people import Role
from monitor.console import changing, parts, registry
from monitor.console.site import Failure, Visit, done, say, tag
from monitor.core.blast import Asked
from monitor.core.desk import Change, ConflictError
from monitor.provenance import edit


class RevokeDialog:
    """A dialog for one key at a time.

    Parameters
    ----------
    visit
        The page.
    finished
        Asked after something was changed.
    overtaken
        Told, in a sentence, that the policy has changed since the page was read.
    """

    def __init__(
        self,
        visit: Visit,
        finished: Callable[[], Awaitable[None]],
        overtaken: Callable[[str], None],
    ) -> None:
        self._visit, self._finished, self._overtaken = visit, finished, overtaken
        self._key = ""
        self._base: Change | None = None
        with ui.dialog() as self._dialog, ui.card(), parts.div("stack") as inner:
            inner.style("width: 100%")
            self._title = parts.text("", "break", "h2")
            self._told = tag(parts.div("stack"), "revoke-sum")
            after = ui.input("Only from this time on, UTC", validation=_wrong)
            after.props("outlined dense clearable maxlength=64 debounce=250").style("width: 100%")
            after.on_value_change(self._tell)
            self._after = tag(after, "revoke-after")
            why = ui.input("Reason, for the history and the audit trail")
            why.props("outlined dense autofocus maxlength=500").style("width: 100%")
            why.on("keydown.enter", self._go)
            self._why = tag(why, "revoke-reason")
            with parts.div("flow").style("justify-content: flex-end"):
                made = ui.button("Cancel", on_click=self._dialog.close).props("flat")
                tag(made, "revoke-cancel")
                made = ui.button("Revoke for good", on_click=self._go)
                self._button = tag(made.props("unelevated color=negative"), "revoke-go")
        tag(self._dialog, "revoke-dialog")
        visit.dialogs.append(self._dialog)

    async def ask(self, key: str, base: Change) -> None:
        """Say what revoking ``key`` in the policy ``base`` would do, and ask for a reason."""
        self._key, self._base = key, base
        self._title.say(f"Revoke {key}")
        for field in (self._why, self._after):
            field.set_value("")
        self._why.props(remove="error error-message")
        self._told.clear()
        with self._told:
            self._sentences = parts.div("stack")
            taught = parts.div()
        self._tell()
        self._button.enable()
        self._dialog.open()
        await self._taught(key, taught)

    def _tell(self) -> None:
        if self._base is None:
            return
        said = str(self._after.value or "")
        if _wrong(said) is not None:
            return
        after = _time(said)
        self._sentences.clear()
        with self._sentences:
            now = time.time()
            for said in registry.consequences(self._base.policy, self._key, now, after):
                parts.text(said, "break")

    async def _taught(self, key: str, box: ui.element) -> None:
        """What was accepted of it before, which revoking does not change."""
        try:
            found = await self._visit.call(self._visit.desk.blast.blast, Asked(keys=(key,)), 0)
        except Failure as error:
            said = f"What it has taught the model cannot be told: {error}"
        else:
            said = registry.taught(found)
        if self._key != key:
            return
        with box:
            tag(parts.text(said, "muted"), "revoke-taught")
            parts.link("Blast radius", f"/blast?{urlencode({'key': key})}", "small")

    async def _go(self) -> None:
        base = self._base
        if base is None or not self._button.enabled or not self._after.validate():
            return
        why = changing.reason(self._why)
        if not why:
            return
        self._button.disable()
        try:
            change = await self._propose(base, why)
        except Failure as error:
            if isinstance(error.cause, ConflictError):
                self._dialog.close()
                self._overtaken(str(error))
            else:
                say(error)
            return
        finally:
            self._button.enable()
        self._dialog.close()
        if change.state == "waiting":
            done("Proposed. A second person has to approve it, on the page Policy.")
        else:
            done(f"{self._key} is revoked; version {change.version} holds now.")
        await self._finished()

    async def _propose(self, base: Change, why: str) -> Change:
        after, who = _time(str(self._after.value or "")), self._visit.now(Role.ADMIN)

        def work() -> Change:
            document = edit.revoked(
                base.policy, self._key, now=time.time(), after_ts=after, why=why
            )
            policy = self._visit.desk.policy
            return policy.propose(document, base=base.version, who=who, why=why)

        return await self._visit.call(work)


def _time(said: str) -> float | None:
    """From which time on, None for all. Raises ValueError."""
    return float(moment(said.strip())) if said.strip() else None


def _wrong(said: str | None) -> str | None:
    """Why that is no time, None if it is one."""
    try:
        _time(said or "")
    except (ValueError, OverflowError) as error:
        return f"It {error}."
    return None
