"""What all that changes something asks and says: a reason, and that somebody was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from monitor.console import parts
from monitor.console.site import tag


def reason(field: ui.input) -> str:
    """The reason in ``field``; empty when there is none, which is said at the field."""
    why = (field.value or "").strip()
    if why:
        field.props(remove="error error-message")
    else:
        field.props("error error-message='Say why, in a few words.'")
    return why


class Conflict:
    """A note, hidden at first, that the policy has changed since the page was read.

    Parameters
    ----------
    reload
        Loads the latest version; its button stands in the note.
    """

    def __init__(self, reload: Callable[[], Awaitable[None]]) -> None:
        self._reload = reload
        self._box = tag(parts.div("note warn"), "conflict").props("role=alert")
        self.hide()

    def show(self, said: str) -> None:
        """Say it, in a sentence."""
        self._box.clear()
        with self._box, parts.div("spread"):
            parts.text(said)
            made = ui.button("Load the latest version", on_click=self._reload).props("flat")
            tag(made, "conflict-reload")
        self._box.set_visibility(True)

    def hide(self) -> None:
        """It is over."""
        self._box.set_visibility(False)
