"""The quarantine's filters: fields of the page, and the address that means the same."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from monitor.console import words
from monitor.console.site import tag
from monitor.core.desk import HeldFilter, ReviewStatus

SPANS = {"": "any time", "900": "last 15 min", "3600": "last hour", "21600": "last 6 h",
         "86400": "last day", "604800": "last week"}  # fmt: skip
STATUS = {"": "any state", "open": "open", "released": "released", "confirmed": "confirmed"}
NAMES = ("text", "status", "family", "label", "detector", "source", "risk", "within")
MOST_CHARS = 256


class Filters:
    """Fields above the table.

    Parameters
    ----------
    query
        The address's query.
    changed
        Asked when somebody has changed one.
    """

    def __init__(self, query: Mapping[str, str], changed: Callable[[], Awaitable[None]]) -> None:
        given = {name: query.get(name, "")[:MOST_CHARS] for name in NAMES}
        self._changed = changed
        self.incident = query.get("incident") or None
        with ui.element("div").classes("filters") as box:
            self.text = self._text("text", "Search source, subject, label, id", given)
            self._status = self._select("status", "State", STATUS, given)
            self._family = self._select("family", "Family", _with(given["family"]), given)
            self._label = self._select("label", "Label", _with(given["label"]), given)
            self._within = self._select("within", "Held", SPANS, given)
            self._source = self._text("source", "Source, exactly", given).classes("more")
            self._detector = self._text("detector", "Detector", given).classes("more")
            self._risk = self._text("risk", "Risk at least", given).classes("more")
            more = ui.button("More filters", on_click=lambda: box.classes(toggle="open"))
            more.props("flat dense").classes("narrow-only more-button")
            made = ui.button("Clear", icon="close", on_click=self._clear).props("flat dense")
            tag(made, "filter-clear")
        if given["source"] or given["detector"] or given["risk"]:
            box.classes("open")

    def _text(self, name: str, title: str, given: Mapping[str, str]) -> ui.input:
        field = ui.input(title, value=given[name])
        field.props("outlined dense clearable debounce=250 maxlength=256")
        field.on_value_change(self._changed)
        return tag(field, f"filter-{name}")  # type: ignore[no-any-return]

    def _select(
        self, name: str, title: str, options: Mapping[str, str], given: Mapping[str, str]
    ) -> ui.select:
        value = given[name] if given[name] in options else ""
        field = ui.select(dict(options), label=title, value=value).props("outlined dense")
        field.on_value_change(self._changed)
        return tag(field, f"filter-{name}")  # type: ignore[no-any-return]

    def offer(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Let people choose among the families and labels that there are."""
        for field, kind in ((self._family, "family"), (self._label, "label")):
            options = {"": "any"}
            for name, n in sorted(counts.get(kind, {}).items(), key=lambda item: -item[1]):
                said = words.family(name) if kind == "family" else name
                options[name] = f"{said} ({words.short(n)})"
            if field.value and field.value not in options:
                options[field.value] = str(field.value)
            if options != field.options:
                field.set_options(options)

    def _fields(self) -> dict[str, str]:
        fields: dict[str, Any] = {
            "text": self.text, "status": self._status, "family": self._family,
            "label": self._label, "detector": self._detector, "source": self._source,
            "risk": self._risk, "within": self._within,
        }  # fmt: skip
        return {name: str(field.value or "").strip() for name, field in fields.items()}

    def address(self) -> str:
        """The page's address with these filters."""
        query = {name: value for name, value in self._fields().items() if value}
        if self.incident:
            query["incident"] = self.incident
        return f"/quarantine?{urlencode(query)}" if query else "/quarantine"

    def chosen(self) -> HeldFilter:
        """The filter they mean."""
        value = self._fields()
        within = float(value["within"]) if value["within"] else None
        return HeldFilter(
            text=value["text"] or None,
            status=ReviewStatus(value["status"]) if value["status"] else None,
            family=value["family"] or None,
            label=value["label"] or None,
            detector=value["detector"] or None,
            source=value["source"] or None,
            risk_at_least=_number(value["risk"]),
            since=None if within is None else time.time() - within,
            incident=self.incident,
        )

    async def _clear(self) -> None:
        ui.navigate.to("/quarantine")


def _with(value: str) -> dict[str, str]:
    return {"": "any"} | ({value: value} if value else {})


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if abs(value) < 1e6 else None
