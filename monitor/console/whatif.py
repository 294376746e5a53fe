"""What another policy would have made of the latest events, beside what the present one does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from monitor.console import parts, words
from monitor.console.site import tag
from monitor.core.desk import WhatIf

ROWS = (("quarantine", "Held"), ("flag", "Flagged"), ("accept", "Accepted"))
MOST = 6
MOST_FLIPS = 8


class WhatIfView:
    """A place that shows what-ifs. Its numbers stay where they are while the next is awaited."""

    def __init__(self) -> None:
        parts.text("What if", kind="h2")
        self._failed = parts.text("", "note bad")
        self._failed.set_visibility(False)
        self._box = tag(parts.div("stack fade"), "whatif")
        self._box.props["aria-live"] = "polite"
        with self._box:
            with ui.element("table").classes("compare"):
                _header("", "now", "then", "")
                self._cells = {word: _row(word, title) for word, title in ROWS}
            self._sums = tag(
                parts.text("Recent events are being judged again …", "muted small"), "whatif-flips"
            )
            self._promise = parts.div()
            self._groups = parts.div("stack")

    def wait(self) -> None:
        """The numbers are being made anew."""
        self._box.classes(add="stale")

    def fail(self, sentence: str) -> None:
        """There are none."""
        self._failed.say(sentence)
        self._failed.set_visibility(True)

    def show(self, found: WhatIf) -> None:
        """Show an answer."""
        self._failed.set_visibility(False)
        self._box.classes(remove="stale")
        for word, _ in ROWS:
            before, after = found.before.get(word, 0), found.after.get(word, 0)
            cells = self._cells[word]
            cells[0].say(words.count(before))
            cells[1].say(words.count(after))
            cells[2].say(_change(before, after))
            # More held is neither good nor bad by itself; the colour only says the direction.
            cells[2].classes(replace="num " + _way(before, after))
        self._sums.say(
            f"{words.count(found.n_flips)} of {words.count(found.events)} events would get another "
            f"verdict; answered in {1000 * found.seconds:.0f} ms."
        )
        self._promise.clear()
        with self._promise, ui.element("table").classes("compare"):
            _header("Share", "promised", "observed", "")
            for word, title in (("flag", "Flagged or held"), ("quarantine", "Held")):
                with ui.element("tr"):
                    parts.text(title, kind="td")
                    promised, seen = found.promised.get(word, 0.0), found.observed.get(word, 0.0)
                    parts.text(words.share(promised), kind="td")
                    tag(parts.text(words.share(seen), kind="td"), f"observed-{word}")
                    parts.text("", kind="td")
        self._groups.clear()
        with self._groups:
            _group("Held by family", found.by_family)
            _group("Held by label", found.by_label)
            _group("Held by source", found.by_source)
            _flips(found)


def _header(*names: str) -> None:
    with ui.element("thead"), ui.element("tr"):
        for name in names:
            parts.text(name, kind="th")


def _row(word: str, title: str) -> tuple[parts.Words, parts.Words, parts.Words]:
    with ui.element("tr"):
        parts.text(title, f"c-{word}", "td")
        return (
            tag(parts.text("–", kind="td"), f"now-{word}"),
            tag(parts.text("–", kind="td"), f"then-{word}"),
            tag(parts.text("", kind="td"), f"change-{word}"),
        )


def _change(before: int, after: int) -> str:
    return "same" if before == after else f"{after - before:+,}"


def _way(before: int, after: int) -> str:
    return "up" if after > before else "down" if after < before else "muted"


def _group(title: str, values: Mapping[str, tuple[int, int]]) -> None:
    rows = sorted(values.items(), key=lambda item: (-abs(item[1][1] - item[1][0]), -item[1][1]))
    with ui.element("table").classes("compare"):
        _header(title, "now", "then", "")
        for name, (before, after) in rows[:MOST]:
            with ui.element("tr"):
                parts.text(words.family(name) if "family" in title else name, kind="td")
                parts.text(words.count(before), kind="td")
                parts.text(words.count(after), kind="td")
                parts.text(_change(before, after), _way(before, after), "td")
    if not rows:
        parts.text("Nothing is or would be held.", "muted small")


def _flips(found: WhatIf) -> None:
    if not found.flips:
        return
    with ui.element("details"):
        parts.text("Events that would change, riskiest first", kind="summary")
        with parts.div("list"):
            for flip in found.flips[:MOST_FLIPS]:
                _flip(flip)


def _flip(flip: Mapping[str, Any]) -> None:
    with parts.div("item small"):
        said = str(flip.get("id", ""))
        if flip.get("before") == "quarantine":
            parts.link(said, f"/quarantine/{quote(str(flip.get('key', '')))}", "break")
        else:
            parts.text(said, "break")
        way = f"{flip.get('before')} → {flip.get('after')}"
        parts.text(f"{flip.get('source')} · {flip.get('label')}: {way}", "muted break")
