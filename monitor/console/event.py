"""One held event: why it was held, what spoke against it, who sent it, and its bytes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from nicegui import ui

from monitor.admin.people import Role
from monitor.console import evidence, parts, words
from monitor.console.life import address
from monitor.console.review import ReviewDialog
from monitor.console.site import Failure, Visit, say, tag
from monitor.core.desk import Held, HeldFilter, ReviewStatus

MOST_BYTES = 20_000


def build(visit: Visit, key: str) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    page = _Event(visit, key)
    return page.load


class _Event:
    def __init__(self, visit: Visit, key: str) -> None:
        self._visit = visit
        self._key = key
        self._dialog = ReviewDialog(visit, self._again)
        parts.link("← Quarantine", "/quarantine?status=open", "small")
        self._box = parts.div("stack").style("margin-top: 8px")
        with self._box:
            parts.empty("The event is being read …")
        ui.keyboard(self._pressed, ignore=["input", "select", "textarea"])

    async def _pressed(self, event: Any) -> None:
        name = event.key.name
        keys = event.modifiers
        if not event.action.keydown or self._visit.asking or keys.ctrl or keys.alt or keys.meta:
            return
        if name in ("r", "c"):
            await self._review("release" if name == "r" else "confirm")

    async def load(self) -> None:
        """Read the event and its source. Raises Failure."""
        quarantine = self._visit.desk.quarantine
        self._box.clear()
        held = await self._visit.call(quarantine.get, self._key)
        with self._box:
            self._head(held)
            with parts.div("half"):
                with parts.div("stack"):
                    _why(held)
                    _detectors(held)
                    _raw(held)
                with parts.div("stack"):
                    _facts(held)
                    _evidence(held)
                    source = parts.div("card")
        try:
            history = await self._visit.call(quarantine.source, held.source)
        except Failure as error:
            history = {}
            with source:
                parts.text(str(error), "muted")
        with source:
            _source(held, history)

    async def _again(self) -> None:
        try:
            await self.load()
        except Failure as error:
            say(error)

    def _head(self, held: Held) -> None:
        with parts.div("spread"):
            with parts.div("flow"):
                parts.text(f"Event {held.event_id}", "break", "h1")
                tag(parts.chip(held.status.value), "event-status")
            with parts.div("flow"):
                for verb, title, colour in (
                    ("release", "Release …", "positive"),
                    ("confirm", "Confirm poison …", "negative"),
                ):
                    made = ui.button(title, on_click=lambda verb=verb: self._review(verb))
                    tag(made.props(f"unelevated color={colour}"), f"event-{verb}")
                    if held.status != ReviewStatus.OPEN or not self._visit.may(Role.OPERATOR):
                        made.disable()
        if held.reviewed_by:
            when = words.clock(held.reviewed_at)
            said = f"{held.status.value.capitalize()} by {held.reviewed_by}, {when} UTC"
            parts.text(f"{said}: {held.review_reason or 'no reason given'}", "note break")

    async def _review(self, verb: str) -> None:
        if self._visit.may(Role.OPERATOR):
            await self._dialog.ask(verb, HeldFilter(keys=(self._key,)))


def _reasons(held: Held) -> list[Mapping[str, Any]]:
    found = held.decision.get("reasons") or []
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _why(held: Held) -> None:
    with parts.div("card"), parts.div("stack"):
        parts.text("Why it was held", kind="h2")
        for reason in _reasons(held):
            with parts.div("reason"):
                tag(parts.text(str(reason.get("text", ""))), "reason-text")
                parts.text(words.family(str(reason.get("detector", ""))), "muted small")
        if not _reasons(held):
            parts.text("The decision names no reason.", "muted")


def _detectors(held: Held) -> None:
    rows = []
    for reason in _reasons(held):
        p = evidence.number(reason.get("p_value"))
        if p is not None:
            strength = -math.log10(max(p, 1e-300))
            rows.append((words.family(str(reason.get("detector"))), strength, f"p = {p:.1e}"))
    with parts.div("card"):
        parts.text("Contribution by detector", kind="h2")
        if rows:
            parts.bars(sorted(rows, key=lambda row: -row[1]), "quarantine")
        else:
            parts.text("The decision names no p-values.", "muted")


def _facts(held: Held) -> None:
    query = urlencode({"source": held.source})
    with parts.div("card"):
        parts.text("The event", kind="h2")
        with ui.element("dl").classes("facts"):
            parts.text("Source", kind="dt")
            with ui.element("dd"):
                parts.link(held.source, f"/quarantine?{query}")
            for name, value in (
                ("Label", held.label),
                ("Subject", held.subject or "none"),
                ("Risk", f"{held.risk:.2f}, one of {10 ** min(held.risk, 15):,.0f} honest events"),
                ("Families", ", ".join(words.family(name) for name in held.families)),
                ("Held", f"{words.clock(held.held_at)} UTC, {words.ago(held.held_at)}"),
                ("Its own time", f"{words.clock(held.ts)} UTC"),
                ("Place", f"partition {held.partition}, offset {held.offset}"),
                ("Policy", f"version {held.policy_version}"),
                ("Signed by key", str(held.decision.get("key_id") or "none that was verified")),
            ):
                parts.text(name, kind="dt")
                parts.text(value, kind="dd")
            parts.text("Lineage", kind="dt")
            with ui.element("dd"):
                tag(parts.link("Its whole life", address(held.event_id)), "event-lineage")
            parts.text("Incident", kind="dt")
            with ui.element("dd"):
                if held.incident:
                    parts.link(held.incident, f"/incidents/{quote(held.incident)}")
                else:
                    parts.text("none", kind="span")


def _evidence(held: Held) -> None:
    """The figures behind each reason; what two reasons have in common is shown once."""
    seen: set[object] = set()
    for reason in _reasons(held):
        found = reason.get("evidence")
        if not isinstance(found, Mapping):
            continue
        detector = words.family(str(reason.get("detector")))
        shown = evidence.read(found)
        for panel in shown.panels:
            if panel in seen:
                continue
            seen.add(panel)
            with parts.div("card"):
                parts.text(panel.title, kind="h2")
                parts.text(f"as {detector} sees it", "muted small")
                if panel.values:
                    parts.facts((name, said) for name, _, said in panel.rows)
                else:
                    parts.bars(panel.rows)
        rest = [pair for pair in shown.rest if repr(pair) not in seen]
        seen.update(repr(pair) for pair in rest)
        if rest:
            with parts.div("card"):
                parts.text(f"Evidence of {detector}", kind="h2")
                parts.facts(rest)


def _source(held: Held, history: Mapping[str, Any]) -> None:
    with parts.div("spread"):
        parts.text("Its source", kind="h2")
        parts.link("All of it", f"/quarantine?{urlencode({'source': held.source})}", "small")
    if not history:
        return
    first = evidence.number(history.get("first_seen"))
    last = evidence.number(history.get("last_seen"))
    held_of_it = int(evidence.number(history.get("held")) or 0)
    events = "event" if held_of_it == 1 else "events"
    said = f"{words.count(held_of_it)} {events} held, first {words.ago(first)}"
    parts.text(f"{said}, last {words.ago(last)}.", "muted")
    with parts.div("stack").style("margin-top: 12px"):
        for name, title in (("by_status", "By state"), ("by_family", "By family"),
                            ("by_day", "By day")):  # fmt: skip
            values = evidence.numbers(history.get(name))
            if values:
                with parts.div():
                    parts.text(title, kind="h3")
                    parts.counted({key: int(n) for key, n in values.items()})


def _raw(held: Held) -> None:
    with parts.div("card"):
        with parts.div("spread"):
            parts.text("As it came", kind="h2")
            address = f"/v1/quarantine/events/{held.partition}-{held.offset}/value"
            parts.link("Download", address, "small").props["download"] = ""
        said = parts.text(_readable(held.value), "raw", "pre")
        tag(said, "event-value").props["tabindex"] = "0"
        said.style("margin-top: 12px")


def _readable(value: bytes) -> str:
    try:
        pretty = orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        pretty = value.decode("utf-8", "backslashreplace")
    return pretty if len(pretty) <= MOST_BYTES else f"{pretty[:MOST_BYTES]}\n… (download the rest)"
