"""The quarantine: filter, look, and review one by one by keys or many at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from nicegui import events, ui

from monitor.admin.people import Role
from monitor.console import parts, words
from monitor.console.filters import Filters
from monitor.console.review import ReviewDialog
from monitor.console.site import Failure, Visit, say, tag
from monitor.core.desk import Held, HeldFilter, HeldPage, ReviewStatus

PAGE = 25
LOOK_SECONDS = 5.0
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("risk", "Risk", "right"),
    ("source", "Source", "left"),
    ("label", "Label", "left"),
    ("families", "Why", "left"),
    ("subject", "Subject", "left"),
    ("held_at", "Held", "left"),
    ("status", "State", "left"),
)
WIDE = ("subject", "held_at")
# A template of the library; what stands in double braces is text there.
ROW = """
<q-tr :props="props" :data-testid="'row-' + props.row.key" :data-key="props.row.key"
  :class="{focus: props.row.focus, picked: props.row.picked}"
  :aria-selected="props.row.picked ? 'true' : 'false'"
  @click="$parent.$emit('open', props.row.key)">
  <q-td auto-width @click.stop><q-checkbox dense :model-value="props.row.picked"
    :aria-label="'Select event ' + props.row.key" :data-testid="'select-' + props.row.key"
    @update:model-value="$parent.$emit('pick', props.row.key)"></q-checkbox></q-td>
  <q-td key="risk" :props="props"><b class="num">{{ props.row.risk }}</b></q-td>
  <q-td key="source" :props="props" class="clip" :title="props.row.source"
    ><a :href="'/quarantine/' + props.row.key" @click.stop>{{ props.row.source }}</a
    ><span class="narrow-only muted">{{ props.row.families }}</span></q-td>
  <q-td key="label" :props="props" class="clip" :title="props.row.label"
    >{{ props.row.label }}</q-td>
  <q-td key="families" :props="props" class="clip wide-only" :title="props.row.families"
    >{{ props.row.families }}</q-td>
  <q-td key="subject" :props="props" class="clip wide-only" :title="props.row.subject"
    >{{ props.row.subject }}</q-td>
  <q-td key="held_at" :props="props" class="wide-only">{{ props.row.held_at }}</q-td>
  <q-td key="status" :props="props"
    ><span :class="'chip ' + props.row.status">{{ props.row.status }}</span></q-td>
</q-tr>
"""


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    return _Quarantine(visit).load


class _Quarantine:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._cursors: list[str | None] = [None]
        self._page = HeldPage([], 0)
        self._focus = 0
        self._picked: set[str] = set()
        self._all = False
        self._asked = 0
        self._newest: float | None = None
        parts.heading("Quarantine", "What was held back, the latest first. ? shows the keys.")
        query = getattr(visit.connection, "query_params", {})
        self._filters = Filters(query, self._filtered)
        tag(self._filters.text, "search")
        self._observed = tag(parts.text(" ", "muted small"), "observed")
        self._actions()
        columns = [
            {"name": name, "label": title, "field": name, "align": side, "sortable": False,
             "headerClasses": "wide-only" if name in (*WIDE, "families") else ""}
            for name, title, side in COLUMNS
        ]  # fmt: skip
        self._table = ui.table(columns=columns, rows=[], row_key="key", selection="multiple")
        self._table.props(
            "flat dense hide-selected-banner hide-pagination :rows-per-page-options=[0]"
        )
        self._table.props["no-data-label"] = "Looking …"
        self._table.add_slot("header-selection", "")
        self._table.add_slot("body", ROW)
        self._table.on("open", lambda event: self._open(str(event.args)))
        self._table.on("pick", lambda event: self._pick(str(event.args)))
        tag(self._table, "quarantine").style("width: 100%")
        self._pages()
        self._dialog = ReviewDialog(visit, self._reviewed)
        ui.keyboard(self._key, ignore=["input", "select", "textarea"])

    def _actions(self) -> None:
        with parts.div("bar"):
            page = ui.checkbox("All on this page", on_change=self._pick_page).props("dense")
            self._page_box = tag(page, "select-page")
            every = ui.checkbox("All that match", on_change=self._pick_all).props("dense")
            self._all_box = tag(every, "select-all")
            self._chosen = tag(parts.text("Nothing selected", "muted small"), "selected")
            self._chosen.props["aria-live"] = "polite"
            parts.div().style("flex: 1")
            made = ui.button("Release …", on_click=lambda: self._review("release"))
            self._release = tag(made.props("unelevated color=positive"), "release")
            made = ui.button("Confirm poison …", on_click=lambda: self._review("confirm"))
            self._confirm = tag(made.props("unelevated color=negative"), "confirm")

    def _pages(self) -> None:
        with parts.div("bar pager").style("margin-top: 4px"):
            self._total = tag(parts.text(" ", "muted small num"), "total")
            parts.div().style("flex: 1")
            made = ui.button("Refresh", icon="refresh", on_click=self._refresh).props("flat dense")
            self._fresh = tag(made, "refresh")
            made = ui.button("Newer", icon="chevron_left", on_click=self._newer).props("flat dense")
            self._before = tag(made, "newer")
            made = ui.button("Older", on_click=self._older)
            self._after = tag(made.props("flat dense icon-right=chevron_right"), "older")

    async def load(self) -> None:
        """Read the first page. Raises Failure."""
        await self._read()
        await self._count()
        ui.timer(LOOK_SECONDS, self._look)

    async def _look(self) -> None:
        """Say how many have come meanwhile; the table stays as it is under the reader's eyes."""
        search, known = self._visit.desk.quarantine.search, self._page.total
        try:
            total = (await self._visit.call(search, self._filters.chosen(), 1)).total
        except Failure:
            return
        new = total - self._page.total if known == self._page.total else 0
        self._fresh.set_text(f"Refresh ({words.count(new)} new)" if new > 0 else "Refresh")

    async def _refresh(self) -> None:
        self._cursors, self._focus = [None], 0
        await self._reviewed()

    async def _count(self) -> None:
        visit = self._visit
        self._filters.offer(await visit.call(visit.desk.quarantine.counts, HeldFilter()))
        seen = await visit.call(visit.desk.quarantine.observed)
        said = f"False alarms: {words.share(seen.promised)} of honest events promised"
        if seen.estimated is None:
            said += "; not one event has been reviewed yet."
        else:
            said += (
                f", {words.share(seen.estimated)} estimated from {words.count(seen.released)} "
                f"released and {words.count(seen.confirmed)} confirmed."
            )
        self._observed.say(said)

    async def _read(self) -> None:
        """Read the page at the latest cursor; an answer to an earlier question is dropped."""
        self._asked += 1
        mine = self._asked
        search = self._visit.desk.quarantine.search
        page = await self._visit.call(search, self._filters.chosen(), PAGE, self._cursors[-1])
        if mine != self._asked:
            return
        self._page = page
        self._fresh.set_text("Refresh")
        if self._cursors[-1] is None:
            self._newest = max((held.held_at for held in page.items), default=None)
        self._focus = min(self._focus, max(0, len(page.items) - 1))
        self._show()

    async def _again(self) -> None:
        try:
            await self._read()
        except Failure as error:
            say(error)

    async def _filtered(self) -> None:
        self._cursors, self._focus = [None], 0
        self._forget()
        ui.navigate.history.replace(self._filters.address())
        await self._again()

    async def _reviewed(self) -> None:
        self._forget()
        await self._again()
        try:
            await self._count()
        except Failure as error:
            say(error)

    async def _older(self) -> None:
        if self._page.cursor is not None:
            self._cursors.append(self._page.cursor)
            self._focus = 0
            await self._again()

    async def _newer(self) -> None:
        if len(self._cursors) > 1:
            self._cursors.pop()
            self._focus = 0
            await self._again()

    def _forget(self) -> None:
        self._picked.clear()
        self._all = False
        self._page_box.set_value(False)
        self._all_box.set_value(False)

    def _show(self) -> None:
        items = list(self._page.items)
        self._table.props["no-data-label"] = "Nothing fits these filters."
        self._table.rows = [self._row(number, held) for number, held in enumerate(items)]
        first = (len(self._cursors) - 1) * PAGE
        total = self._page.total
        at = f"{words.count(first + 1)} to {words.count(first + len(items))} of " if items else ""
        self._total.say(f"{at}{words.count(total)} events")
        self._before.set_enabled(len(self._cursors) > 1)
        self._after.set_enabled(self._page.cursor is not None)
        n = total if self._all else len(self._picked)
        self._chosen.say(f"{words.count(n)} selected" if n else "Nothing selected")
        may = self._visit.may(Role.OPERATOR)
        self._release.set_enabled(may and n > 0)
        self._confirm.set_enabled(may and n > 0)

    def _row(self, number: int, held: Held) -> dict[str, Any]:
        return {
            "key": held.key,
            "risk": f"{held.risk:.1f}",
            "source": held.source,
            "label": held.label,
            "families": ", ".join(words.family(name) for name in held.families),
            "subject": held.subject or "",
            "held_at": words.ago(held.held_at),
            "status": held.status.value,
            "picked": self._all or held.key in self._picked,
            "focus": number == self._focus,
        }

    def _pick(self, key: str) -> None:
        if self._all:
            self._all = False
            self._all_box.set_value(False)
            self._picked = {held.key for held in self._page.items}
        self._picked ^= {key}
        self._show()

    def _pick_page(self, event: events.ValueChangeEventArguments[Any]) -> None:
        keys = {held.key for held in self._page.items}
        self._picked = self._picked | keys if event.value else self._picked - keys
        self._show()

    def _pick_all(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self._all = bool(event.value)
        self._show()

    def _open(self, key: str) -> None:
        ui.navigate.to(f"/quarantine/{quote(key)}")

    async def _review(self, verb: str) -> None:
        if self._visit.asking or not self._visit.may(Role.OPERATOR):
            return
        if self._all:
            await self._dialog.ask(verb, self._everything())
            return
        keys = self._picked or {held.key for held in self._page.items[self._focus :][:1]}
        if keys:
            await self._dialog.ask(verb, HeldFilter(keys=tuple(sorted(keys))))

    def _everything(self) -> HeldFilter:
        """All that match, as of now: what is held later was not looked at."""
        chosen = self._filters.chosen()
        if self._newest is not None:
            chosen = replace(chosen, until=self._newest + 1e-3)
        return chosen if chosen.status else replace(chosen, status=ReviewStatus.OPEN)

    async def _key(self, event: events.KeyEventArguments) -> None:
        pressed = event.key.name
        if not event.action.keydown or self._visit.asking or _modified(event):
            return
        items = self._page.items
        if pressed in ("j", "k") and items:
            step = 1 if pressed == "j" else -1
            self._focus = min(len(items) - 1, max(0, self._focus + step))
            self._show()
            ui.run_javascript(
                "document.querySelector('tr.focus')?.scrollIntoView({block: 'nearest'})"
            )
        elif pressed == "x" and items:
            self._pick(items[self._focus].key)
        elif pressed == "o" and items:
            self._open(items[self._focus].key)
        elif pressed in ("r", "c"):
            await self._review("release" if pressed == "r" else "confirm")
        elif pressed == "/":
            self._filters.text.run_method("focus")


def _modified(event: events.KeyEventArguments) -> bool:
    keys = event.modifiers
    return bool(keys.ctrl or keys.alt or keys.meta)
