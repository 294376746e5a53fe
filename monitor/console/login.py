"""Pages of plain HTML: the login, and what stands at ``/`` without the console's library."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Query
from starlette.responses import HTMLResponse

from monitor.admin.auth import LOGIN, LOGIN_PAGE

FAILED = {
    "refused": "This token is not known here, was revoked or has expired.",
    "wait": "Too many failed logins from your address. Wait a minute, then try again.",
}
INSTALL = "pip install 'poisoning-monitor[console]'"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title} · poisoning-monitor</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>{style}
.box {{ max-width: 400px; margin: 14vh auto 0; padding: 0 16px; }}
.box .card {{ padding: 28px; }} .box .brand {{ margin-bottom: 20px; }}
label {{ display: block; font-weight: 500; margin: 20px 0 6px; }}
input[type=password] {{ box-sizing: border-box; width: 100%; font: inherit; padding: 10px 12px;
  border: 1px solid var(--muted); border-radius: 8px; background: var(--card); color: var(--ink); }}
button {{ margin-top: 16px; width: 100%; font: inherit; font-weight: 500; padding: 10px; border: 0;
  border-radius: 8px; background: var(--accent); color: var(--accent-ink); cursor: pointer; }}
code {{ overflow-wrap: anywhere; background: var(--soft); padding: 2px 6px; border-radius: 4px; }}
p {{ margin: 8px 0 0; }}
</style>
<script>
const said = document.cookie.match(/monitor_dark=([01])/);
if (said ? said[1] === '1' : matchMedia('(prefers-color-scheme: dark)').matches)
  document.documentElement.classList.add('dark');
</script></head>
<body><main class="box"><div class="card"><div class="brand"><span class="dot"></span>
poisoning-monitor</div>{body}</div></main></body></html>"""
FORM = """<h1>Log in</h1>
<p class="muted">With the token you were given by <code>poisoning-monitor token create</code>.</p>
{failed}<form method="post" action="{action}">
<input type="hidden" name="next" value="{next}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus
 maxlength="512" data-testid="login-token">
<button type="submit" data-testid="login-submit">Log in</button></form>"""


def style() -> str:
    """The console's style sheet."""
    return (files("monitor.console") / "style.css").read_text("utf-8")


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(PAGE.format(title=title, style=style(), body=body))


def add_login(app: FastAPI) -> None:
    """Have ``app`` answer at the login's address, which is open to everybody."""

    @app.get(LOGIN_PAGE, include_in_schema=False)
    def login(
        failed: Annotated[str, Query(max_length=32)] = "",
        target: Annotated[str, Query(alias="next", max_length=1024)] = "/",
    ) -> HTMLResponse:
        said = FAILED.get(failed)
        note = f'<p class="note bad" role="alert">{said}</p>' if said else ""
        body = FORM.format(failed=note, action=LOGIN, next=escape(target, quote=True))
        return _page("Log in", body)


def add_missing(app: FastAPI) -> None:
    """Have ``/`` say how to get the console."""
    body = (
        "<h1>The console is not installed</h1><p>It needs one more library:</p>"
        f"<p><code>{INSTALL}</code></p><p>Then start the service again. The HTTP interface "
        "and the terminal work without it.</p>"
    )
    _add_front(app, "Not installed", body)


def add_elsewhere(app: FastAPI) -> None:
    """Have ``/`` say that another service of this process has the console."""
    body = (
        "<h1>The console is with another service</h1><p>This process runs several, and one of "
        "them has the console. The HTTP interface works here too.</p>"
    )
    _add_front(app, "Elsewhere", body)


def _add_front(app: FastAPI, title: str, body: str) -> None:
    @app.get("/", include_in_schema=False)
    def front() -> HTMLResponse:
        return _page(title, body)
