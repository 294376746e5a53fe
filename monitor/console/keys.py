"""The signing keys: who may speak for which sources, who said so, and revoking one."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from monitor.admin.desk import PolicyDesk
from monitor.admin.people import Role
from monitor.console import changing, parts, registry
from monitor.console.registry import Key, Origin
from monitor.console.revoke import RevokeDialog
from monitor.console.site import Failure, Visit, say, tag
from monitor.core.desk import Change
from monitor.provenance import edit

SHOWN = 100
VERSIONS, PAGE = 200, 20
MOST_CHARS = 256
HOW = """poisoning-monitor keys new shop-2026-05 --out shop.key --source "shop-*" > shop.json
poisoning-monitor keys add --file shop.json --why "The shop signs from May on\""""


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    return _Keys(visit).load


class _Keys:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._keys: list[dict[str, Any]] = []
        self._origins: dict[str, Origin] = {}
        self._now: Change | None = None
        parts.heading("Keys", "Who may sign events, and for which sources. Times are UTC.")
        with parts.div("stack"):
            self._conflict = changing.Conflict(self._again)
            with parts.div("card"):
                given = visit.connection.query_params.get("id", "")[:MOST_CHARS]
                field = ui.input("Search id, or a source it speaks for", value=given)
                field.props("outlined dense clearable debounce=250 maxlength=256")
                field.on_value_change(self._list_keys)
                self._field = tag(field, "keys-search")
                self._list = tag(parts.div("list"), "keys").style("margin-top: 16px")
                with self._list:
                    parts.empty("The registry is being read …")
            self._rules = tag(parts.div("card"), "keys-rules")
            self._rules.set_visibility(False)
        self._dialog = RevokeDialog(visit, self._again, self._conflict.show)

    async def load(self) -> None:
        """Read the registry and who has changed it. Raises Failure."""
        visit, policy = self._visit, self._visit.desk.policy
        now = await visit.call(policy.current)
        self._origins = await visit.call(lambda: registry.origins(_past(policy)))
        self._now = now
        self._keys = registry.listed(now.policy, time.time())
        self._list_keys()
        self._show_rules(now)

    async def _again(self) -> None:
        self._conflict.hide()
        try:
            await self.load()
        except Failure as error:
            say(error)

    def _list_keys(self) -> None:
        if self._now is None:
            return
        text = str(self._field.value or "").strip()
        found = registry.chosen(self._keys, text) if text else list(self._keys)
        self._list.clear()
        with self._list:
            if not self._keys:
                _none(edit.part_of(self._now.policy))
            elif not found:
                parts.empty("No key has this in its id, and none speaks for such a source.")
            for key in found[:SHOWN]:
                self._key(key)
            if len(found) > SHOWN:
                parts.text(f"And {len(found) - SHOWN} more: search for them.", "muted small")

    def _key(self, key: Key) -> None:
        with tag(parts.div("item key"), "key-row"):
            parts.chip(key["state"], registry.CHIPS.get(key["state"], "plain"))
            with parts.div("break"):
                parts.text(key["id"], "break").style("font-weight: 600")
                parts.text(f"{key['algorithm']}, speaks for {', '.join(key['sources'])}")
                if key["state"] != "revoked":
                    said = f"Good for what was signed {registry.times(key)}."
                    parts.text(said, "muted small")
                told = registry.history(key, self._origins.get(key["id"], Origin()))
                if told:
                    parts.text(f"{told[:1].upper()}{told[1:]}.", "muted small")
                if key["why"]:
                    parts.text(key["why"], "small")
                if key["public_key"] is not None:
                    parts.text(f"Public key {key['public_key']}", "muted mono")
            with parts.div("acts"):
                query = urlencode({"key": key["id"]})
                made = parts.link("What it taught the model", f"/blast?{query}", "small")
                tag(made, "key-blast")
                if registry.may_be_revoked(key) and self._visit.may(Role.ADMIN):
                    # The library's own red is too dark for the dark.
                    ask = ui.button("Revoke …", color=None, on_click=lambda: self._revoke(key))
                    ask.props("flat dense").classes("c-quarantine")
                    ask.props["aria-label"] = f"Revoke {key['id']}"
                    tag(ask, "key-revoke")

    async def _revoke(self, key: Key) -> None:
        if self._now is not None:
            await self._dialog.ask(key["id"], self._now)

    def _show_rules(self, now: Change) -> None:
        part = edit.part_of(now.policy)
        self._rules.clear()
        self._rules.set_visibility(True)
        with self._rules:
            with parts.div("spread"):
                parts.text("Whose events have to be signed", kind="h2")
                target = f"/policy?version={now.version}"
                parts.link(f"Policy version {now.version}", target, "small")
            rules = [(rule["sources"], _rule(rule)) for rule in part["rules"]]
            others = "all others" if rules else "all sources"
            parts.facts([*rules, (others, registry.SIGNATURES[part["default"]])])
            if not self._visit.may(Role.ADMIN):
                parts.text("Changing keys and rules takes the role admin.", "muted small")


def _past(policy: PolicyDesk) -> Iterator[Change]:
    """The versions up to now, the latest first, read in pages: each is a whole document."""
    before: int | None = None
    for _ in range(VERSIONS // PAGE):
        found = policy.history(PAGE, before)
        yield from found
        if len(found) < PAGE:
            return
        before = found[-1].version


def _rule(rule: Mapping[str, Any]) -> str:
    said = registry.SIGNATURES[rule["signature"]]
    return f"{said} ({rule['why']})" if rule["why"] else said


def _none(part: Mapping[str, Any]) -> None:
    with tag(parts.div("stack"), "keys-none"):
        asked = part["rules"] or part["default"] != "optional"
        so = "." if asked else ": whatever source an event names is believed."
        parts.text(f"No key is registered{so}")
        parts.text("An admin makes one and adds it from a terminal:", "muted")
        parts.text(HOW, "raw", "pre")
        parts.text(
            "deploy/provenance.md says how producers sign, and how the policy asks for it.", "muted"
        )
