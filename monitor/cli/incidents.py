"""``incidents list`` and ``incidents show``: what flagged events were grouped into."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.cli import common
from monitor.cli.client import (
    DEFAULT_URL,
    Access,
    CaOption,
    CertOption,
    Client,
    TokenOption,
    UrlOption,
)
from monitor.cli.desk_options import JsonOption
from monitor.cli.desk_view import counted, plain, print_json, when
from monitor.core.errors import UsageError

app = typer.Typer(
    help="Look at incidents: campaigns, drifts and faults of the data.", no_args_is_help=True
)
EPILOG = """\
**Examples**

`poisoning-monitor incidents list --state open`

`poisoning-monitor incidents show i-31f4e4244fe04b64 --json`
"""


@app.command("list", epilog=EPILOG)
def list_(
    *,
    state: Annotated[
        str | None, typer.Option("--state", metavar="WORD", help="open or closed.")
    ] = None,
    family: Annotated[
        str | None, typer.Option("--family", metavar="NAME", help="A family or a kind.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")] = 50,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="C", help="Go on behind an earlier list.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """List incidents, the open ones first."""
    if state not in (None, "open", "closed"):
        raise UsageError(f"--state: {state!r}; say open or closed")
    with Client(Access(url, token, ca_file, client_cert)) as client:
        page = client.get("/v1/incidents", state=state, family=family, limit=limit, cursor=cursor)
    if as_json:
        print_json(page)
        return
    out = common.console()
    out.print(incident_table(page["items"], page["total"]))
    if page["cursor"]:
        out.print(f"more: --cursor {page['cursor']}", markup=False)


@app.command("show", epilog=EPILOG)
def show(
    *,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Show one incident: what it is, who is behind it, what its events share."""
    if not identifier.replace("-", "").isalnum():
        raise UsageError(f"{identifier!r}: an identifier looks like i-31f4e4244fe04b64")
    with Client(Access(url, token, ca_file, client_cert)) as client:
        found = client.get(f"/v1/incidents/{identifier}")
    if as_json:
        print_json(found)
    else:
        print_incident(common.console(), found)


def incident_table(items: list[dict[str, Any]], total: int) -> Table:
    """A line an incident, or two in a narrow terminal: the identifier is never cut."""
    table = Table(
        title=counted(total, "incident"),
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("id", "state", "what", "sure", "events", "sources", "last event"):
        right = name in ("sure", "events", "sources")
        whole = name not in ("what", "last event")
        table.add_column(name, justify="right" if right else "left", no_wrap=whole, overflow="fold")
    for found in items:
        table.add_row(
            Text(found["id"]),
            found["state"],
            Text(_what(found)),
            f"{100 * found['confidence']:.0f} %",
            f"{found['events']:,}",
            f"{found['sources']['estimate']:,}",
            when(found["last"]["ts"]),
        )
    return table


def _what(found: dict[str, Any]) -> str:
    kind, family = found["kind"], found["family"]
    return str(kind) if kind == family else f"{kind}: {family}"


def print_incident(out: Console, found: dict[str, Any]) -> None:
    """All that is known of an incident, in words."""
    out.print(_line(f"{found['id']}  {found['kind']}: {found['family']}, {found['state']}"))
    out.print(_line(found["text"]))
    out.print(f"from {when(found['first']['ts'])} to {when(found['last']['ts'])}")
    held, flagged = found["quarantined"], found["flagged"]
    out.print(f"{counted(found['events'])}: {held:,} quarantined, {flagged:,} flagged")
    worth = counted(round(found["influence"]), "ordinary event")
    out.print(f"worth {worth} to a model that learns them")
    for title, rows, name in (
        ("sources", found["sources"]["top"], "source"),
        ("labels", found["labels"], "label"),
        ("subjects", found["common"].get("subjects", []), "subject"),
    ):
        if rows:
            told = ", ".join(f"{row[name]} ({row['events']:,})" for row in rows)
            out.print(_line(f"{title}: {told}"))
    for part in found["common"].get("pattern", []):
        value = "" if part["value"] is None else f" ≈ {part['value']:.4g}"
        out.print(_line(f"pattern: {part['feature']}{value}"))
    for flip in found["common"].get("flips", []):
        out.print(_line(f"flip: {flip['from']} → {flip['to']} ({flip['events']:,})"))
    out.print(_line(f"evidence: {', '.join(found['evidence'])}"))


def _line(text: str) -> Text:
    """What strangers wrote: no markup, nothing that steers the terminal, and all of it."""
    return plain(text, len(text))
