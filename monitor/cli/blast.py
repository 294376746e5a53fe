"""``blast``: what a source, or an incident, has already taught the model, and taking it back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from monitor.admin.desk_schemas import moment
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
from monitor.cli.desk_view import counted, print_json
from monitor.core.errors import TransportError, UsageError

_ATTEMPTS = 3

EPILOG = """\
**Examples**

`poisoning-monitor blast --source acct-71 --since 2026-05-01T12:00:00Z`

`poisoning-monitor blast --incident i-31f4e4244fe04b64 --retract --reason "The ring of last week"`

`poisoning-monitor blast --key shop-2026-05 --retract --reason "The key was stolen"`

`poisoning-monitor blast --dir replayed --source acct-71 --json`

Without --yes, --retract only says what it would do. Exit codes: 0 done, 1 refused, 2 bad usage or
value, 3 service unreachable.
"""


def command(
    *,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="NAME", help="Of a source; repeatable.")
    ] = None,
    incident: Annotated[
        str | None,
        typer.Option("--incident", metavar="ID", help="Of an incident: its sources and pattern."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME", help="With a label; repeatable.")
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option("--subject", metavar="NAME", help="About a subject; repeatable."),
    ] = None,
    signed_by: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="ID", help="Signed by a key; repeatable."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Unix seconds or RFC 3339, the event's own."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Before this time.")
    ] = None,
    shown: Annotated[
        int,
        typer.Option("--shown", metavar="N", min=0, max=1000, help="So many events one by one."),
    ] = 10,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Of a folder of `replay --out` or `run --out`."),
    ] = None,
    retract: Annotated[
        bool, typer.Option("--retract", metavar="", help="Tell the learner to take them back.")
    ] = False,
    why: Annotated[
        str | None,
        typer.Option("--reason", "--why", metavar="TEXT", help="It stands in the audit trail."),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", metavar="", help="With --retract: do it, not only say it."),
    ] = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Show what accepted events of a source, or like those of an incident, have taught the model.

    When the first was accepted and where, how they are spread, and which checkpoint of the model
    is the last that learned none of them. With --retract the learner is told to take them back,
    each exactly once.
    """
    given = {
        "sources": source,
        "subjects": subject,
        "labels": label,
        "keys": signed_by,
        "since": _time("--since", since),
        "until": _time("--until", until),
        "incident": incident,
    }
    asked = {name: value for name, value in given.items() if value not in (None, [])}
    if not asked.keys() - {"since", "until"}:
        raise UsageError("say whose events: --source, --key, --subject, --label or --incident")
    if retract and (why is None or not why.strip()):
        raise UsageError("--reason: say why; it stands in the records and the audit trail")
    if folder is not None:
        _of_folder(folder, asked, shown, retract=retract, as_json=as_json)
        return
    with Client(Access(url, token, ca_file, client_cert)) as client:
        if not retract:
            _show(client.post("/v1/blast", asked | {"shown": shown}), as_json)
            return
        if not yes and not as_json:
            _show(client.post("/v1/blast", asked | {"shown": shown}), as_json)
        _retract(client, asked, str(why), yes=yes, as_json=as_json)


def _time(option: str, text: str | None) -> float | None:
    try:
        return None if text is None else float(moment(text))
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _show(found: Mapping[str, Any], as_json: bool) -> None:
    from monitor.cli.blast_view import print_blast  # noqa: PLC0415 - not needed for --help

    print_json(found) if as_json else print_blast(common.console(), found)


def _of_folder(
    folder: Path, asked: Mapping[str, Any], shown: int, *, retract: bool, as_json: bool
) -> None:
    from monitor.cli.blast_folder import blast_of  # noqa: PLC0415 - slow to import
    from monitor.core.blast import Asked  # noqa: PLC0415

    if retract:
        raise UsageError("--retract: goes through the running service; a folder is only looked at")
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in asked.items()}
    _show(blast_of(folder, Asked(**values), shown), as_json)


def _retract(
    client: Client, asked: Mapping[str, Any], why: str, *, yes: bool, as_json: bool
) -> None:
    """Say what would be done, or do it; a lost answer is asked for again under the same key."""
    body = {"asked": asked, "why": why, "dry_run": not yes}
    key = uuid.uuid4().hex if yes else None
    for attempt in range(_ATTEMPTS):
        try:
            done = client.post("/v1/retractions", body, key=key)
            break
        except TransportError:
            if key is None or attempt + 1 == _ATTEMPTS:
                raise
    if as_json:
        print_json(done)
        return
    before = f"; {done['already']:,} had been before" if done["already"] else ""
    if done["dry_run"]:
        typer.echo(f"would retract {counted(done['events'])}{before}; --yes does it")
    else:
        typer.echo(f"retracted {counted(done['events'])}{before}, request {done['request']}")
