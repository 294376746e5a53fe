"""The frame of every page: navigation, who is there, dark mode, help, and what failed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from importlib.resources import files

from nicegui import events, ui

from monitor.admin.auth import LOGIN, LOGIN_PAGE
from monitor.admin.desk_parts import NO_DESK
from monitor.console import parts
from monitor.console.login import style
from monitor.console.site import Failure, Visit, tag

log = logging.getLogger("monitor.console")
NAV = (
    ("/", "Overview", "insights"),
    ("/incidents", "Incidents", "campaign"),
    ("/thresholds", "Thresholds", "tune"),
    ("/quarantine", "Quarantine", "inbox"),
    ("/policy", "Policy", "history"),
    ("/blast", "Blast radius", "radar"),
    ("/drills", "Drills", "science"),
    ("/audit", "Audit", "fact_check"),
    ("/lineage", "Lineage", "timeline"),
    ("/keys", "Keys", "key"),
)
WIDE = ("/blast", "/drills", "/lineage", "/keys")
"""Pages to which others lead where there is no room."""
DESKLESS = ("/", "/incidents", "/lineage")
"""Pages that have something to show where there is no desk."""
KEYS = (
    ("j  k", "next and previous event"),
    ("x", "select it, or let go of it"),
    ("o", "open it"),
    ("r", "release the selected ones, or this one"),
    ("c", "confirm as poison"),
    ("/", "search"),
    ("?", "this help"),
    ("Esc", "close"),
)
HEAD = """<style>{style}</style><script>
document.documentElement.classList.toggle('dark', {dark});
if (!/monitor_dark=/.test(document.cookie)) {{
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  document.cookie = 'monitor_dark=' + (dark ? 1 : 0) + ';path=/;max-age=31536000;SameSite=Strict';
  if (dark && /monitor_dark=1/.test(document.cookie)) location.reload();
}}
{script}</script>"""
SET_DARK = """() => {
  const dark = document.documentElement.classList.toggle('dark');
  document.cookie = 'monitor_dark=' + (dark ? 1 : 0) + ';path=/;max-age=31536000;SameSite=Strict';
}"""
"""The browser's own part of the switch: the choice is kept before the server is asked, so who
goes on to the next page at once finds it there."""
LOG_OUT = """(async () => {{
  const me = await (await fetch('{session}')).json();
  await fetch('{session}', {{method: 'DELETE', headers: {{'x-csrf-token': me.csrf || ''}}}});
  location.href = '{login}';
}})()"""


def framed(visit: Visit, title: str, build: Callable[[], Callable[[], Awaitable[None]]]) -> None:
    """A page: ``build`` makes what stands there at once and gives what loads the rest."""
    ui.page_title(f"{title} · poisoning-monitor")
    script = (files("monitor.console") / "drag.js").read_text("utf-8")
    is_dark = "true" if visit.dark else "false"
    ui.add_head_html(HEAD.format(style=style(), dark=is_dark, script=script))
    ui.colors(primary="#2352c9", positive="#1f7a54", negative="#c02542", warning="#9a5b00")
    dark = ui.dark_mode(visit.dark)
    help_ = _help()
    visit.dialogs.append(help_)
    ui.keyboard(
        lambda event: _ask_help(event, visit, help_), ignore=["input", "select", "textarea"]
    )
    with ui.element("header").classes("top"), parts.div("top-in"):
        parts.link("Skip to the content", "#content", "skip")
        with ui.element("a").classes("brand") as brand:
            brand.props["href"] = "/"
            parts.div("dot")
            parts.text("poisoning-monitor", kind="span")
        _navigation(visit)
        _ends(visit, dark, help_)
    with parts.div("main") as main:
        # The library makes the landmark itself; a page has one.
        main.props["id"] = "content"
        main.props["tabindex"] = "-1"
        if visit.site.desk is None and not _is_below(visit.path, DESKLESS):
            parts.heading(title)
            parts.text(NO_DESK, "note")
            return
        load = build()

    async def loading() -> None:
        try:
            with main:
                await load()
        except Failure as error:
            with main:
                tag(parts.text(str(error), "note bad").props("role=alert"), "failed")
        except Exception:
            log.exception("%s could not be shown", visit.path)
            with main:
                parts.text("This page could not be shown; the log says why.", "note bad")

    ui.timer(0.01, loading, once=True)


def _is_below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or (place != "/" and path.startswith(place)) for place in places)


def _navigation(visit: Visit) -> None:
    with ui.element("nav").classes("nav") as nav:
        nav.props["aria-label"] = "Pages"
        for target, name, icon in NAV:
            with ui.element("a") as made:
                made.props["href"] = target
                if target in WIDE:
                    made.classes("wide-only")
                if _is_below(visit.path, (target,)):
                    made.classes("here").props["aria-current"] = "page"
                ui.icon(icon).props("aria-hidden=true")
                parts.text(name, kind="span")


def _ends(visit: Visit, dark: ui.dark_mode, help_: ui.dialog) -> None:
    def turn() -> None:
        visit.dark = not visit.dark
        dark.set_value(visit.dark)
        for told in visit.on_dark:
            told(visit.dark)

    with parts.div("top-end"):
        person = visit.person
        parts.text(person.name, "who small").props["title"] = f"{person.name}, {person.role.value}"
        made = ui.button(icon="dark_mode", on_click=turn).props("flat round dense color=grey-7")
        made.on("click", js_handler=SET_DARK)
        tag(made, "dark").props["aria-label"] = "Dark mode on or off"
        made = ui.button(icon="keyboard", on_click=help_.open)
        made.props("flat round dense color=grey-7").classes("wide-only")
        tag(made, "help").props["aria-label"] = "Keys"
        if person.session is not None:
            made = ui.button(icon="logout", on_click=_log_out).props(
                "flat round dense color=grey-7"
            )
            tag(made, "logout").props["aria-label"] = "Log out"


def _log_out() -> None:
    ui.run_javascript(LOG_OUT.format(session=LOGIN, login=LOGIN_PAGE))


def _ask_help(event: events.KeyEventArguments, visit: Visit, dialog: ui.dialog) -> None:
    if event.action.keydown and event.key.name == "?" and not visit.asking:
        dialog.open()


def _help() -> ui.dialog:
    with ui.dialog() as dialog, ui.card(), parts.div("stack"):
        parts.text("Keys in the quarantine", kind="h2")
        with parts.div("keys"):
            for key, what in KEYS:
                with parts.div():
                    for one in key.split():
                        parts.text(one, kind="kbd").style("margin-right: 4px")
                parts.text(what)
        ui.button("Close", on_click=dialog.close).props("flat").style("align-self: flex-end")
    tag(dialog, "help-dialog")

    return dialog
