"""Small pieces of pages. Text goes in as text: the library escapes it, nothing here is markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nicegui import ui
from nicegui.element import Element

from monitor.console import words


class Words(Element, component=None):
    """An element of HTML with text in it."""

    def __init__(self, kind: str, text: str = "", classes: str = "") -> None:
        super().__init__(kind)
        self._text = text
        if classes:
            self.classes(classes)

    def say(self, text: str) -> None:
        """Show another text."""
        if text != self._text:
            self._text = text
            self.update()


def div(classes: str = "") -> Element:
    """A plain box."""
    return ui.element("div").classes(classes)


def text(said: str, classes: str = "", kind: str = "div") -> Words:
    """Text in an element of its own."""
    return Words(kind, said, classes)


def heading(title: str, sub: str = "") -> None:
    """A page's title."""
    with div("head"):
        text(title, kind="h1")
        if sub:
            text(sub, "sub")


def chip(said: str, kind: str = "") -> Words:
    """A word in a pill."""
    return text(said, f"chip {kind or said}", "span")


def link(said: str, target: str, classes: str = "") -> Words:
    """A link within the console. The target's variable parts have to be quoted already."""
    made = text(said, classes, "a")
    made.props["href"] = target
    return made


def empty(said: str) -> Words:
    """What stands where nothing is, or nothing yet."""
    return text(said, "empty")


def bars(values: Iterable[tuple[str, float, str]], classes: str = "") -> None:
    """Names, boxes as long as their values, and how the values read."""
    rows = list(values)
    most = max((abs(value) for _, value, _ in rows), default=0.0) or 1.0
    with div("bars"):
        for name, value, said in rows:
            text(name, "k").props["title"] = name
            with div("track"):
                div(f"fill {classes}").style(f"width: {100 * abs(value) / most:.1f}%")
            text(said, "n")


def counted(values: Mapping[str, int], classes: str = "", most: int = 8) -> None:
    """Bars of the largest counts."""
    rows = sorted(values.items(), key=lambda item: -item[1])
    bars(((words.family(name), n, words.count(n)) for name, n in rows[:most]), classes)
    if len(rows) > most:
        text(f"and {len(rows) - most} more", "muted small")


def facts_box() -> Element:
    """What names (``dt``) and values (``dd``) stand in."""
    return ui.element("dl").classes("facts")


def facts(values: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line."""
    with facts_box():
        for name, value in values:
            text(name, kind="dt")
            text(words.plain(value), kind="dd")


def differences(found: Iterable[Any]) -> None:
    """What differs between two policies."""
    rows = list(found)
    if not rows:
        text("Nothing differs.", "muted small")
        return
    with div("diff"):
        for item in rows:
            text(item.path, "p mono")
            text(words.plain(item.before), "b")
            text(words.plain(item.after), "a")
