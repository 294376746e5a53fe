"""The first page: is somebody attacking, what comes in, what was held lately."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from monitor.admin.desk_parts import NO_DESK
from monitor.console import charts, incidents, parts, words
from monitor.console.live import VERDICTS, Mood, Window, mood
from monitor.console.site import Failure, Visit, tag
from monitor.core.desk import Applied, Change, Held, HeldFilter, ReviewStatus

EVERY_SECONDS = 2.0
DESK_SECONDS = 6.0
LATEST = 6
ICONS = {
    "calm": "check_circle",
    "elevated": "warning",
    "attack": "gpp_bad",
    "idle": "hourglass_top",
}
TILES = (
    ("held", "Held", "c-quarantine"),
    ("flagged", "Flagged", "c-flag"),
    ("rate", "Events a second", ""),
    ("open", "Waiting for review", ""),
    ("lag", "Behind the input", ""),
    ("policy", "Policy", ""),
)


def build(visit: Visit) -> Callable[[], Awaitable[None]]:
    """What stands on the page, and what fills it."""
    page = _Overview(visit)

    async def load() -> None:
        # Whether somebody attacks is told by the counts alone. A ledger or a store that fails or
        # hangs must not take that away, so the desk is asked by a clock of its own.
        await page.refresh()
        ui.timer(EVERY_SECONDS, page.refresh)
        if visit.site.desk is None:
            page.without_desk()
        else:
            await page.ask_desk()
            ui.timer(DESK_SECONDS, page.ask_desk)

    return load


class _Overview:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._now: Change | None = None
        self._applied: list[Applied] = []
        self._open: int | None = None
        self._failed: set[str] = set()
        self._seen: tuple[str, ...] = ()
        self._grouped: tuple[Any, ...] | None = None
        self._families: tuple[tuple[str, int], ...] | None = None
        with parts.div("banner idle") as self._banner:
            tag(self._banner, "mood").props["role"] = "status"
            self._icon = ui.icon("hourglass_top").props("aria-hidden=true")
            with parts.div():
                self._title = tag(parts.text("Looking …", "t"), "mood-title")
                self._said = parts.text("Counts are being read.")
            with parts.div("go"):
                go = ui.button("Review what is held")
                go.on_click(lambda: ui.navigate.to("/quarantine?status=open"))
                go.props("unelevated color=primary")
        with parts.div("tiles"):
            self._tiles = {name: _tile(name, title, kind) for name, title, kind in TILES}
        self._charts_and_lists()
        visit.on_dark.append(self._dark)

    def _charts_and_lists(self) -> None:
        with parts.div("grid2"):
            with parts.div("stack"):
                with parts.div("card"):
                    parts.text("Flagged and held, events a second", kind="h2")
                    self._by_verdict = charts.rates(self._visit.dark, ("flag", "quarantine"))
                    tag(self._by_verdict, "rates-verdict")
                with parts.div("card"):
                    parts.text("By family, events a second", kind="h2")
                    self._by_family = charts.rates(self._visit.dark, ())
                    tag(self._by_family, "rates-family")
            with parts.div("stack"):
                with parts.div("card"):
                    with parts.div("spread"):
                        parts.text("Open incidents", kind="h2")
                        parts.link("All", "/incidents", "small")
                    self._incidents = tag(parts.div("list"), "open-incidents")
                with parts.div("card"):
                    parts.text("Families in the last minute", kind="h2")
                    self._family_bars = parts.div()
                with parts.div("card"):
                    with parts.div("spread"):
                        parts.text("Held lately", kind="h2")
                        parts.link("All", "/quarantine", "small")
                    self._latest = tag(parts.div("list"), "latest")

    def _dark(self, dark: bool) -> None:
        for chart in (self._by_verdict, self._by_family):
            charts.recolour(chart, dark)

    async def refresh(self) -> None:
        """Show the counts of now; that they cannot be read is said in the banner."""
        visit = self._visit
        try:
            snapshot = await visit.counts()
        except Failure as error:
            self._show_mood(Mood("idle", "The counts cannot be read", str(error)))
            return
        window = visit.site.live.window()
        self._show_mood(mood(window, snapshot, {} if self._now is None else self._now.policy))
        self._show_tiles(window, snapshot)
        self._show_charts(window)
        try:
            found = (await visit.incidents()).matching("open")
        except Failure as error:
            self._show_incidents([], str(error))
        else:
            self._show_incidents(found, "Nothing that belongs together.")

    async def ask_desk(self) -> None:
        """Read the policy and what was held lately; each says for itself that it failed."""
        policy, waiting = self._visit.desk.policy, HeldFilter(status=ReviewStatus.OPEN)
        call = self._visit.call
        try:
            self._now = await call(policy.current)
            self._applied = list(await call(policy.applied))
            self._failed.discard("policy")
        except Failure:
            self._failed.add("policy")
        try:
            page = await call(self._visit.desk.quarantine.search, waiting, LATEST)
        except Failure as error:
            self._failed.add("open")
            self._nothing_held(str(error))
        else:
            self._failed.discard("open")
            self._open = page.total
            self._show_latest(list(page.items))

    def without_desk(self) -> None:
        """Say that there is nobody to ask."""
        self._failed.update(("policy", "open"))
        self._nothing_held(NO_DESK)

    def _nothing_held(self, said: str) -> None:
        self._seen = ()
        self._latest.clear()
        with self._latest:
            parts.text(said, "muted")

    def _show_mood(self, now: Mood) -> None:
        self._banner.classes(replace=f"banner {now.word}")
        self._icon.set_name(ICONS[now.word])
        self._title.say(now.title)
        self._said.say(now.text)

    def _show_tiles(self, window: Window, snapshot: Mapping[str, Any]) -> None:
        rates = snapshot.get("rates") or {}
        lag = snapshot.get("lag_events")
        held, flagged = window.verdicts.get("quarantine", 0), window.verdicts.get("flag", 0)
        events = words.short(snapshot.get("events", 0))
        now = self._now
        behind = sum(1 for one in self._applied if now is not None and one.version < now.version)
        replicas = f"{len(self._applied)} replicas" if len(self._applied) != 1 else "1 replica"
        mode = "" if now is None else str(now.policy.get("mode", ""))
        shown = {
            "held": (words.short(held), f"last minute, {words.share(window.share('quarantine'))}"),
            "flagged": (words.short(flagged), f"last minute, {words.share(window.share('flag'))}"),
            "rate": (words.short(rates.get("10s", 0.0)), f"{events} in all"),
            "open": ("–" if self._open is None else words.short(self._open), "held events"),
            "lag": ("–" if lag is None else words.short(lag), "events"),
            "policy": (
                "–" if now is None else f"v{now.version}",
                f"{mode}, {behind} behind" if behind else f"{mode}, {replicas}",
            ),
        }  # fmt: skip
        for name in self._failed:
            shown[name] = ("–", "not known now")
        for name, (value, below) in shown.items():
            self._tiles[name][0].say(value)
            self._tiles[name][1].say(below)

    def _show_charts(self, window: Window) -> None:
        live = self._visit.site.live
        names = tuple(live.samples[-1].families) if live.samples else ()
        charts.feed(self._by_verdict, live.rates("verdicts", VERDICTS[1:3]))
        charts.feed(self._by_family, live.rates("families", sorted(names)))
        families = tuple(sorted(window.families.items()))
        if families == self._families:
            return
        self._families = families
        self._family_bars.clear()
        with self._family_bars:
            if any(n for _, n in families):
                parts.counted(dict(families), "quarantine")
            else:
                parts.text("No family spoke against an event.", "muted")

    def _show_incidents(self, found: list[dict[str, Any]], nothing: str) -> None:
        now = tuple((one["id"], one["family"], one["events"]) for one in found)
        if now == self._grouped:
            return
        self._grouped = now
        self._incidents.clear()
        with self._incidents:
            if not found:
                parts.text(nothing, "muted")
            for one in found[:LATEST]:
                with parts.div("item held"):
                    parts.text(words.short(incidents.size(one)), "num c-quarantine")
                    with parts.div("break"):
                        parts.link(incidents.called(one), f"/incidents/{quote(one['id'])}")
                        parts.text(incidents.senders(one), "muted small")
                    parts.text(words.ago(one["last"]["ts"]), "muted small")

    def _show_latest(self, items: list[Held]) -> None:
        keys = tuple(held.key for held in items)
        if keys == self._seen and keys:
            return
        self._seen = keys
        self._latest.clear()
        with self._latest:
            if not items:
                parts.text("Nothing waits for review.", "muted")
            for held in items:
                with parts.div("item held"):
                    parts.text(f"{held.risk:.1f}", "num c-quarantine")
                    with parts.div("break"):
                        parts.link(held.source, f"/quarantine/{quote(held.key)}")
                        kinds = ", ".join(words.family(name) for name in held.families)
                        parts.text(f"{held.label} · {kinds}", "muted small")
                    parts.text(words.ago(held.held_at), "muted small")


def _tile(name: str, title: str, kind: str) -> tuple[parts.Words, parts.Words]:
    with parts.div("tile"):
        parts.text(title, "l")
        value = tag(parts.text("–", f"v {kind}"), f"tile-{name}")
        return value, parts.text(" ", "d")
