"""Incidents: what flagged events were grouped into, the open ones first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from nicegui import ui

from monitor.console import parts, words
from monitor.console.site import Failure, Visit, say, tag

EVERY_SECONDS = 4.0
MOST = 100
STATES = {"": "any state", "open": "open", "closed": "closed"}
KINDS = {"campaign": "campaign", "drift": "drift", "data_fault": "data fault"}
MOST_CHARS = 64
Account = Mapping[str, Any]


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    query = getattr(visit.connection, "query_params", {})
    chosen = {name: str(query.get(name, ""))[:MOST_CHARS] for name in ("state", "family")}
    with parts.div("spread"):
        parts.heading("Incidents", "Flagged events that belong together, the open ones first. UTC.")
        parts.link("Drills", "/drills", "small narrow-only")
    fields = _fields(chosen)
    with parts.div("card"):
        rows = tag(parts.div("list"), "incidents")
        with rows:
            parts.empty("Incidents are being read …")
    shown: list[tuple[Any, ...]] = []

    async def read() -> None:
        found = await visit.incidents()
        _offer(fields["family"], [one["family"] for one in found.incidents])
        items = found.matching(chosen["state"] or None, chosen["family"] or None)
        now = [(one["id"], one["state"], one["family"], one["events"]) for one in items]
        if shown == now and now:
            return
        shown[:] = now
        rows.clear()
        with rows:
            _rows(visit, items)

    async def again() -> None:
        try:
            await read()
        except Failure as error:
            say(error)

    async def load() -> None:
        await read()
        ui.timer(EVERY_SECONDS, again)

    return load


def _rows(visit: Visit, items: list[dict[str, Any]]) -> None:
    if visit.site.incidents is None:
        parts.empty("This process keeps no incidents: look at the running service.")
    elif not items:
        parts.empty("No incidents: what was flagged is what chance explains.")
    for one in items[:MOST]:
        row(one)
    if len(items) > MOST:
        parts.text(f"and {len(items) - MOST} more: narrow the list", "muted small")


def row(one: Account) -> None:
    """A line about an incident."""
    with parts.div("item incident") as line:
        tag(line, "incident-row")
        parts.chip(one["state"])
        with parts.div("break"):
            parts.link(called(one), f"/incidents/{quote(one['id'])}")
            parts.text(first_sentence(one), "muted small")
        parts.text(f"{words.count(size(one))} events", "num")
        parts.text(senders(one), "num muted")
        first, last = words.clock(one["first"]["ts"]), words.clock(one["last"]["ts"])
        parts.text(f"{first} – {last[11:] if last[:10] == first[:10] else last}", "num muted small")


def called(one: Account) -> str:
    """Family and kind in words."""
    family, kind = words.family(one["family"]), words.family(one["kind"])
    return family.capitalize() if family == kind else f"{family.capitalize()}, {kind}"


def size(one: Account) -> int:
    """How many events it has, those included in which a drift or a fault shows."""
    return int(one["events"] + one["surprised"])


def senders(one: Account) -> str:
    """How many sources; nothing where nobody sent what it is about."""
    n = int(one["sources"]["estimate"])
    return "" if not n else f"{words.count(n)} source{'s' if n != 1 else ''}"


def first_sentence(one: Account) -> str:
    """What stands out, without numbers that stand beside it and without advice."""
    sentences = str(one["text"]).split(". ")
    said = sentences[1] if one["kind"] == "campaign" and len(sentences) > 1 else sentences[0]
    return said if said.endswith(".") else f"{said}."


def _fields(chosen: dict[str, str]) -> dict[str, ui.select]:
    fields: dict[str, ui.select] = {}

    def changed() -> None:
        query = {name: field.value for name, field in fields.items() if field.value}
        ui.navigate.to(f"/incidents?{urlencode(query)}" if query else "/incidents")

    with parts.div("filters two"):
        for name, title, options in (
            ("state", "State", STATES),
            ("family", "Family or kind", {"": "any"} | KINDS),
        ):
            value = chosen[name]
            given = dict(options) | ({value: words.family(value)} if value else {})
            field = ui.select(given, label=title, value=value).props("outlined dense")
            fields[name] = tag(field.on_value_change(changed), f"incident-{name}")
    return fields


def _offer(field: ui.select, families: list[str]) -> None:
    """Let people choose among the families that there are."""
    options = {"": "any"} | KINDS | {name: words.family(name) for name in sorted(set(families))}
    if field.value and field.value not in options:
        options[field.value] = words.family(str(field.value))
    if options != field.options:
        field.set_options(options)
