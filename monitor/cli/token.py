"""``token``: who may use the HTTP interface, the console and the terminal's desk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile
from monitor.cli import common
from monitor.cli.desk_options import JsonOption
from monitor.cli.desk_view import plain, print_json, table, when
from monitor.config.settings import load_settings
from monitor.core.errors import UsageError

DAY = 86400.0

EPILOG = """\
**Example**

`poisoning-monitor token create ana --role operator --file tokens.json`

and then `http.tokens_file: tokens.json` in the settings of the service.
"""

app = typer.Typer(
    help="Make and revoke tokens for the HTTP interface.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="File of tokens; by default http.tokens_file."),
]
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Whose token; stands in history and audit.")
]


def _file(file: Path | None, config: Path | None) -> TokenFile:
    if file is not None:
        return TokenFile(file)
    name = load_settings(config).http.tokens_file
    if name is None:
        raise UsageError("say which file: --file FILE, or http.tokens_file in the settings")
    return TokenFile(Path(name))


@app.command("create", epilog=EPILOG)
def create(
    *,
    name: NameArgument,
    role: Annotated[
        Role,
        typer.Option(
            "--role",
            help="viewer reads; operator also changes and reviews; admin also decides about keys "
            "and erases.",
        ),
    ] = Role.VIEWER,
    expires_days: Annotated[
        float | None,
        typer.Option(
            "--expires-days",
            metavar="DAYS",
            min=0.0,
            help="Good for so long; by default without end.",
        ),
    ] = None,
    file: FileOption = None,
    config: common.ConfigOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Make a token and show it, once: only its hash is stored."""
    tokens = _file(file, config)
    expires_at = None if expires_days is None else time.time() + expires_days * DAY
    text = tokens.create(name, role, expires_at)
    if as_json:
        print_json({"name": name, "role": role, "token": text, "expires_at": expires_at})
        return
    typer.echo(text)
    typer.echo(f"{name} is {role.value} now; keep this token, it is shown only once", err=True)


@app.command("list")
def list_(
    *,
    file: FileOption = None,
    config: common.ConfigOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """List who has a token; the tokens themselves are nowhere."""
    tokens = _file(file, config).tokens()
    if as_json:
        shown = ("name", "role", "created_at", "expires_at")
        print_json([{key: getattr(token, key) for key in shown} for token in tokens])
        return
    made = table(f"{len(tokens)} tokens", "name", "role", "created", "expires")
    now = time.time()
    for token in tokens:
        expires = "never" if token.expires_at is None else when(token.expires_at)
        if token.expired(now):
            expires += " (has)"
        made.add_row(plain(token.name), token.role, when(token.created_at), expires)
    common.console().print(made)


@app.command("revoke")
def revoke(
    *,
    name: NameArgument,
    file: FileOption = None,
    config: common.ConfigOption = None,
    debug: common.DebugOption = False,
) -> None:
    """Forget a token: it, and sessions begun with it, are refused at once."""
    _file(file, config).revoke(name)
    typer.echo(f"{name} is revoked")
