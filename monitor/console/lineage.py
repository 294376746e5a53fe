"""The life of an event: where it came in, what judged it, why, and what people did then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from monitor.admin.chain_routes import MAX_ID
from monitor.console import life, parts, words
from monitor.console.evidence import number
from monitor.console.life import Life
from monitor.console.site import Failure, Visit, tag

SHOWN = 20
WHERE = (
    "A service on files finds every event that it decided about. On Kafka this page knows what is "
    "in the quarantine store and the latest events that were not plainly accepted; the topics tell "
    "of all others:"
)


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    return _Lineage(visit).load


class _Lineage:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._id = life.cleaned(visit.connection.query_params.get("id", ""))
        parts.heading("Lineage", "The whole life of an event, by its id. Times are UTC.")
        with parts.div("lookup"):
            field = ui.input("Id of the event, exactly", value=self._id)
            field.props(f"outlined dense clearable autofocus maxlength={MAX_ID}")
            field.on("keydown.enter", self._asked)
            self._field = tag(field, "lineage-id")
            made = ui.button("Look", on_click=self._asked).props("unelevated color=primary")
            self._button = tag(made, "lineage-look")
        self._box = tag(parts.div("stack"), "lineage").style("margin-top: 16px")
        self._box.props["aria-live"] = "polite"

    async def load(self) -> None:
        """Look the address's event up, where it names one."""
        if self._id:
            await self._look()
            return
        with self._box:
            parts.empty("Type the id of an event, as its sender gave it.")

    async def _asked(self) -> None:
        said = str(self._field.value or "")
        # An id from the address may begin with a blank; one that somebody pastes should not.
        wanted = life.cleaned(said if said == self._id else said.strip())
        if not wanted or not self._button.enabled:
            return
        self._id = wanted
        ui.navigate.history.replace(life.address(wanted))
        await self._look()

    async def _look(self) -> None:
        wanted, chains = self._id, self._visit.site.chains
        if chains is None:
            self._say("This process keeps no decisions that could be looked up.")
            return
        self._box.clear()
        with self._box:
            parts.empty("The event is being looked up …")
        self._button.disable()
        try:
            found = list(await self._visit.call(chains.lineage, wanted))
        except Failure as error:
            self._say(str(error))
            return
        finally:
            self._button.enable()
        self._box.clear()
        with self._box:
            if found:
                _lives(wanted, found)
            else:
                _missing(wanted)

    def _say(self, sentence: str) -> None:
        self._box.clear()
        with self._box:
            tag(parts.text(sentence, "note bad").props("role=alert"), "lineage-failed")


def _missing(wanted: str) -> None:
    with tag(parts.div("card"), "lineage-missing"), parts.div("stack"):
        parts.text("No event of this id is known here", kind="h2")
        parts.text(WHERE, "muted")
        tag(parts.text(life.command(wanted), "raw", "pre"), "lineage-command")
        parts.text(
            "For the folder of a replay put --dir FOLDER in place of --config. "
            "Only the whole id is found; parts of one can be searched for among held events.",
            "muted",
        )
        query = urlencode({"text": wanted})
        parts.link("Search the quarantine", f"/quarantine?{query}", "small")


def _lives(wanted: str, found: list[Life]) -> None:
    with parts.div():
        parts.text(wanted, "break", "h2")
        tag(parts.text(life.summary(found), "muted"), "lineage-summary")
    for number_, one in enumerate(found[:SHOWN], start=1):
        title = f"Decision {number_} of {len(found)}" if len(found) > 1 else ""
        _life(one, title)
    if len(found) > SHOWN:
        parts.text(f"And {len(found) - SHOWN} more:", "muted")
        parts.text(life.command(wanted), "raw", "pre")


def _life(one: Life, title: str) -> None:
    with tag(parts.div("card"), "lineage-life"):
        if title:
            parts.text(title, kind="h2")
        with parts.div("life"):
            _came(one)
            _judged(one)
            for deed in life.deeds(one):
                _done(deed)
            _now(one)


def _came(one: Life) -> None:
    decision = one.get("decision") or {}
    with parts.div("step"):
        parts.text("It came in", kind="h3")
        with parts.facts_box():
            _fact("Place", life.place(one), "lineage-place")
            _fact("Source", _said(one.get("source")))
            _fact("Label", _said(decision.get("label")))
            own = number(decision.get("ts"))
            _fact("Its own time", "none that could be read" if own is None else words.clock(own))
            key = one.get("key_id")
            target = None if key is None else f"/keys?{urlencode({'id': str(key)})}"
            said = "nobody whose signature was verified" if key is None else str(key)
            _fact("Signed by key", said, "lineage-key", target)


def _judged(one: Life) -> None:
    decision = one.get("decision") or {}
    with parts.div(f"step {one.get('verdict')}"):
        with parts.div("flow"):
            tag(parts.text(life.verdict(one), kind="h3"), "lineage-verdict")
            risk = number(decision.get("risk"))
            if risk is not None:
                parts.text(f"risk {risk:.2f}", "muted small num")
        for reason in life.reasons(one):
            with parts.div(f"reason {one.get('verdict')}"):
                tag(parts.text(str(reason.get("text", ""))), "lineage-reason")
                parts.text(words.family(str(reason.get("detector", ""))), "muted small")
        if not life.reasons(one):
            parts.text("No detector spoke against it.", "muted")
        with parts.facts_box():
            version = one.get("policy_version")
            target = f"/policy?version={version}" if isinstance(version, int) else None
            _fact("Policy", f"version {_said(version)}", "lineage-policy", target)
            _fact("Mode", _said(decision.get("mode")))
            _fact("State digest", _read(one.get("state")), "lineage-state")
            _fact("Software", _read(one.get("software")), "lineage-software")
            incident = one.get("incident")
            target = life.incident_address(str(incident)) if incident else None
            # The first events of one come before there is one.
            said = str(incident) if incident else "none when it was decided"
            _fact("Incident", said, "lineage-incident", target)
            _fact("Proven by", life.proof(one), "lineage-proof")


def _done(deed: life.Deed) -> None:
    with tag(parts.div("step person"), "lineage-deed"):
        parts.text(f"{deed.what} by {deed.who}", "break", "h3")
        parts.text(deed.why or "No reason given.", "break")
        when = "at a time that is not known" if deed.when is None else words.clock(deed.when)
        parts.text(f"{when}, {deed.proof}" if deed.proof else when, "muted small")


def _now(one: Life) -> None:
    held = life.held_address(one)
    if held is None:
        return
    waits = not life.deeds(one)
    with parts.div("step"):
        parts.text("No review is known here" if waits else "Since then", kind="h3")
        tag(parts.link("Its page in the quarantine", held), "lineage-held")


def _fact(name: str, said: str, testid: str = "", target: str | None = None) -> None:
    parts.text(name, kind="dt")
    with ui.element("dd"):
        made = parts.text(said, kind="span") if target is None else parts.link(said, target)
        if testid:
            tag(made, testid)


def _said(value: Any) -> str:
    """What an event or a decision says, as it is written there."""
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else words.plain(value)


def _read(value: Any) -> str:
    """What stands in the audit chain only."""
    return "not at hand here; audit show reads it" if value is None else words.plain(value)
