"""The blast radius: what a source or an incident has taught the model, and taking it back."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nicegui import ui

from monitor.admin.desk_schemas import moment
from monitor.admin.people import Role
from monitor.console import changing, parts, words
from monitor.console.life import address
from monitor.console.site import Failure, Visit, done, say, tag
from monitor.core.blast import Asked

FIELDS = (
    ("source", "Source, exactly"),
    ("key", "Signed by key"),
    ("incident", "Incident"),
    ("label", "Label"),
    ("subject", "Subject"),
    ("since", "Since, UTC"),
    ("until", "Until, UTC"),
)
MOST_CHARS = 256
SHOWN = 20


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    parts.heading(
        "Blast radius",
        "What a source, or the pattern of an incident, has already taught the model.",
    )
    query = visit.connection.query_params
    fields: dict[str, ui.input] = {}

    async def look() -> None:
        try:
            asked = _asked(fields)
            found = await visit.call(visit.desk.blast.blast, asked, SHOWN)
        except Failure as error:
            say(error)
            return
        box.clear()
        with box:
            _show(visit, found, lambda: dialog.ask(asked))

    dialog = _RetractDialog(visit, look)
    with ui.element("div").classes("filters open"):
        for name, title in FIELDS:
            field = ui.input(title, value=query.get(name, "")[:MOST_CHARS])
            field.props("outlined dense clearable maxlength=256")
            field.on("keydown.enter", look)
            fields[name] = tag(field, f"blast-{name}")
        made = ui.button("Look", on_click=look).props("unelevated color=primary")
        tag(made, "blast-look")
    box = tag(parts.div("stack"), "blast")
    box.props["aria-live"] = "polite"

    async def first() -> None:
        if any(field.value for field in fields.values()):
            await look()
            return
        with box:
            parts.empty(
                "Name a source, a key or an incident to see what the learner was given of it."
            )
        with box:
            _checkpoints(await visit.call(visit.desk.blast.checkpoints))

    return first


def _asked(fields: Mapping[str, ui.input]) -> Asked:
    """What the fields say. Raises Failure."""
    given = {name: (field.value or "").strip() for name, field in fields.items()}
    times: dict[str, float | None] = {}
    for name in ("since", "until"):
        try:
            times[name] = float(moment(given[name])) if given[name] else None
        except ValueError as error:
            raise Failure(f"{name}: {error}.") from error
    lists = {
        f"{name}s": (given[name],) if given[name] else ()
        for name in ("source", "subject", "label", "key")
    }
    asked = Asked(**lists, **times, incident=given["incident"] or None)  # type: ignore[arg-type]
    if asked.is_open:
        raise Failure("Name a source, a key, an incident, a label or a subject.")
    return asked


def _show(visit: Visit, found: Mapping[str, Any], retract: Callable[[], Awaitable[None]]) -> None:
    n, back = found["events"], found["retracted"]
    with parts.div("card stack"):
        told = f"{words.count(n)} accepted event{'s match' if n != 1 else ' matches'}"
        tag(parts.text(told, kind="h2"), "blast-events")
        if back:
            parts.text(f"{words.count(back)} of them were taken back already.", "muted")
        _incomplete(found["index"])
        if n:
            _ends(found)
            counts = found["histogram"]
            most = max(counts["counts"])
            with parts.div("flow").style("align-items: flex-end; gap: 2px; height: 72px") as bars:
                bars.props["aria-hidden"] = "true"
                for count in counts["counts"]:
                    high = f"height: {max(2, round(70 * count / most))}px" if count else "height: 0"
                    parts.div().style(f"{high}; flex: 1; background: #cc5c7a; border-radius: 2px")
            start, seconds = counts["start"], counts["seconds"]
            end = start + seconds * len(counts["counts"])
            parts.text(f"{words.clock(start)} to {words.clock(end)} UTC", "muted small")
        if n > back and visit.may(Role.OPERATOR):
            made = ui.button("Take back …", on_click=retract).props("outline color=negative")
            tag(made, "blast-retract")
    _models(found["checkpoints"], n > 0)
    if n:
        with parts.div("card stack"):
            for name in ("label", "subject", "source", "key"):
                spread = found[f"{name}s"]
                if spread["distinct"]:
                    parts.text(f"By {name}, {words.count(spread['distinct'])} in all", kind="h3")
                    parts.counted(spread["top"])
        _items(found["items"])


def _incomplete(index: Mapping[str, Any]) -> None:
    missing = [f"{part}-{at}" for part, at in index["complete_from"].items() if at]
    if missing:
        told = f"The index begins at {', '.join(missing)}: what was before is not known any more."
        parts.text(told, "note")
    if index["behind"]:
        parts.text(f"The index is about {words.count(index['behind'])} events behind.", "note")


def _ends(found: Mapping[str, Any]) -> None:
    rows = []
    for name in ("first", "last"):
        one = found[name]
        at = one["accepted"]
        where = f"{found['index']['topic']} {at['partition']}-{at['offset']}"
        rows.append((f"{name} accepted", f"{words.clock(one['accepted_at'])}, {where}"))
    parts.facts(rows)


def _models(found: Mapping[str, Any], any_found: bool) -> None:
    with parts.div("card stack"):
        parts.text("Checkpoints of the model", kind="h2")
        last = found["last_clean"]
        if not found["known"]:
            parts.text("None is known: learners tell of theirs in the topic or here.", "muted")
            return
        if last is None:
            told = "None is clean: every one has learned some of these events."
        else:
            sure = "" if found["certain"] else ", as far as the index goes back"
            told = f"Last clean: {last['name']}, {words.clock(last['ts'])} UTC{sure}."
        tag(parts.text(told, "break"), "blast-clean")
        if any_found:
            for name, title in (("tainted", "Tainted"), ("unclear", "Unclear")):
                if found[name]:
                    names = ", ".join(one["name"] for one in found[name][:SHOWN])
                    parts.text(f"{title}: {names}", "muted break")


def _checkpoints(models: Any) -> None:
    if models:
        with parts.div("card stack"):
            parts.text("Checkpoints of the model", kind="h2")
            parts.facts((one.name, f"{words.clock(one.ts)} UTC") for one in models[:SHOWN])


def _items(items: Any) -> None:
    with parts.div("card"), parts.div("list"):
        for one in items:
            with parts.div("item small"):
                at = one["accepted"]
                parts.text(f"{at['partition']}-{at['offset']}", "num muted")
                with parts.div("break"):
                    tag(parts.link(str(one["id"]), address(str(one["id"]))), "blast-event")
                    parts.text(f" of {one['source']}", kind="span")
                parts.text(f"{one['label']} · {words.clock(one['ts'])}", "muted break")


class _RetractDialog:
    """First what it would do, then a reason, then it is done, once."""

    def __init__(self, visit: Visit, finished: Callable[[], Awaitable[None]]) -> None:
        self._visit, self._finished = visit, finished
        self._asked, self._key = Asked(), ""
        with ui.dialog() as self._dialog, ui.card(), parts.div("stack"):
            parts.text("Take back from the learner", kind="h2")
            parts.text(
                "A record for each event goes to the topic of retractions, once. What a learner "
                "does with it is up to the learner.",
                "muted",
            )
            self._told = tag(parts.text(""), "retract-sum")
            self._why = ui.input("Reason, for the records and the audit trail")
            self._why.props("outlined dense maxlength=500").style("width: 100%")
            tag(self._why, "retract-reason")
            with parts.div("flow").style("justify-content: flex-end"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat")
                self._button = ui.button("Take back", on_click=self._go)
                tag(self._button.props("unelevated color=negative"), "retract-go")
        visit.dialogs.append(self._dialog)

    async def ask(self, asked: Asked) -> None:
        """Say what would be taken back, and ask for a reason."""
        self._asked, self._key = asked, uuid.uuid4().hex
        self._why.set_value("")
        try:
            outcome = await self._call("dry run", dry_run=True)
        except Failure as error:
            say(error)
            return
        before = f", {words.count(outcome.already)} were before" if outcome.already else ""
        self._told.say(f"{words.count(outcome.events)} would be taken back{before}.")
        self._dialog.open()

    async def _call(self, why: str, *, dry_run: bool) -> Any:
        who = self._visit.now(Role.OPERATOR)
        # The same key when somebody asks again because no answer came.
        return await self._visit.call(
            self._visit.desk.blast.retract,
            self._asked,
            who=who,
            why=why,
            key=self._key,
            dry_run=dry_run,
        )

    async def _go(self) -> None:
        why = changing.reason(self._why)
        if not why:
            return
        self._button.disable()
        try:
            outcome = await self._call(why, dry_run=False)
        except Failure as error:
            say(error)
            return
        finally:
            self._button.enable()
        self._dialog.close()
        done(f"{words.count(outcome.events)} taken back.")
        await self._finished()
