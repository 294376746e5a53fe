"""The audit trail: what people did, when and why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nicegui import ui

from monitor.console import parts, words
from monitor.console.site import Failure, Visit, say, tag
from monitor.core.desk import AuditEntry

PAGE = 50
MOST_CHARS = 60


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    with parts.div("spread headline"):
        parts.heading(
            "Audit trail", "Changes, reviews, erasures and logins, the latest first. UTC."
        )
        with parts.div("flow small"):
            tag(parts.link("The life of one event", "/lineage"), "audit-lineage")
            parts.link("Signing keys", "/keys")
    with parts.div("card"):
        rows = tag(parts.div("list"), "audit")
        with rows:
            parts.empty("The trail is being read …")
    last: list[float] = []

    async def read() -> None:
        before = last[-1] if last else None
        found = list(await visit.call(visit.desk.log.audit, PAGE, before))
        if before is None:
            rows.clear()
        with rows:
            if before is None and not found:
                parts.empty("Nobody has done anything yet.")
            for entry in found:
                _row(entry)
        if found:
            last.append(found[-1].when)
        more.set_visibility(len(found) == PAGE)

    async def older() -> None:
        try:
            await read()
        except Failure as error:
            say(error)

    more = tag(ui.button("Older", on_click=older).props("flat"), "audit-older")
    more.set_visibility(False)
    return read


def _row(entry: AuditEntry) -> None:
    with parts.div("item audit") as row:
        tag(row, "audit-row")
        parts.text(words.clock(entry.when), "num muted small")
        parts.text(entry.who or "unknown", "break").style("font-weight: 500")
        parts.text(entry.what, "break")
        with parts.div("break"):
            parts.text(entry.why or "No reason given.")
            _details(entry.details)


def _details(details: Mapping[str, Any]) -> None:
    """What fits into a line at once, long lists for those who open them."""
    said = {name: words.plain(value) for name, value in details.items()}
    short = [f"{name} {text}" for name, text in said.items() if len(text) <= MOST_CHARS]
    if short:
        parts.text(", ".join(short), "muted small")
    long = {name: text for name, text in said.items() if len(text) > MOST_CHARS}
    if long:
        with ui.element("details").classes("small muted"):
            parts.text("More", kind="summary")
            parts.facts((words.family(name), text) for name, text in long.items())
