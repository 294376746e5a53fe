"""``report``: an incident, a stretch of time or a week, as a page, as JSON or as text."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer

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
from monitor.cli.desk_view import print_json
from monitor.cli.reports import digest_page, folder, page, service, text
from monitor.cli.reports.digest import Digest, folder_digest, service_digest
from monitor.cli.reports.facts import Facts, Record, instant, with_runbooks
from monitor.core.errors import UsageError
from monitor.core.runbooks import BASE

EPILOG = """\
**Examples**

`poisoning-monitor report --incident i-31f4e4244fe04b64 --out incident.html`

`poisoning-monitor report --dir result --from 2026-05-01 --to 2026-05-02 --out day.html`

`poisoning-monitor report --weekly | mail -s "Poisoning digest" team@example.com`

Without --dir the running service is asked: its address comes from --url or MONITOR_URL, the token
from --token or MONITOR_TOKEN. Exit codes: 0 done, 1 refused or a damaged file, 2 bad usage or an
unknown incident, 3 service unreachable or the disk is full.
"""
Form = Callable[[Facts | Digest], bytes]


def _html(made: Facts | Digest) -> bytes:
    whole = digest_page.page(made) if isinstance(made, Digest) else page.page(made)
    return whole.encode("utf-8", "replace")


def _json(made: Facts | Digest) -> bytes:
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(made.as_dict(), option=options)


def _text(made: Facts | Digest) -> bytes:
    whole = digest_page.text(made) if isinstance(made, Digest) else text.text(made)
    return whole.encode("utf-8", "replace")


FORMS: dict[str, Form] = {".html": _html, ".htm": _html, ".json": _json, ".txt": _text}


def command(
    *,
    incident: Annotated[
        str | None,
        typer.Option(
            "--incident", metavar="ID", help="About one incident; `incidents list` names them."
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="From this time on: Unix seconds or RFC 3339."),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to this time.")] = None,
    weekly: Annotated[
        bool,
        typer.Option("--weekly", metavar="", help="The week up to --to against the one before."),
    ] = False,
    dir_: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="A folder of `replay --out` or `run --out`."),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", metavar="FILE", help=".html, .json or .txt; may be given again."),
    ] = None,
    runbooks: Annotated[
        str,
        typer.Option(
            "--runbooks",
            metavar="URL",
            envvar="MONITOR_RUNBOOKS",
            help="Where your team reads deploy/runbooks; links lead there.",
        ),
    ] = BASE,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Write a report on an incident or a stretch of time, or a week's digest.

    The page needs no network. It has the account, what passed before the incident was noticed, the
    evidence, plots, and what people decided; what cannot be known from where it was made stands
    there as such. Without --out it is printed as text.
    """
    wanted = _checked(incident, from_, to, weekly)
    files = [(path, _form(path)) for path in out or ()]
    access = Access(url, token, ca_file, client_cert)
    made = _made(wanted, dir_, access)
    with_runbooks(_incidents(made), runbooks)
    for path, form in files:
        _write(path, form(made))
        typer.echo(f"see {path}", err=as_json)
    if as_json:
        print_json(made.as_dict())
    elif not files:
        sys.stdout.write(_text(made).decode())


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked for."""

    incident: str | None
    start: float | None
    end: float | None
    weekly: bool


def _checked(incident: str | None, from_: str | None, to: str | None, weekly: bool) -> _Wanted:
    """What is meant by the options. Raises UsageError."""
    start = None if from_ is None else instant(from_, "--from")
    end = None if to is None else instant(to, "--to")
    if incident is not None and (weekly or start is not None or end is not None):
        raise UsageError("--incident goes alone: its own time is what the report is about")
    if weekly and start is not None:
        raise UsageError("--weekly: is the week up to --to; leave --from out")
    if start is not None and end is not None and start >= end:
        raise UsageError("--from must be before --to")
    return _Wanted(incident, start, end, weekly)


def _made(wanted: _Wanted, path: Path | None, access: Access) -> Facts | Digest:
    """Gather the facts. Raises MonitorError."""
    now, start, end = time.time(), wanted.start, wanted.end
    if path is not None:
        if wanted.weekly:
            return folder_digest(path, end, now)
        if wanted.incident is not None:
            return folder.incident_facts(path, wanted.incident, now)
        return folder.period_facts(path, start, end, now)
    if wanted.incident is None and not wanted.weekly and start is None:
        raise UsageError("say what the report is about: --incident ID, --from TIME, or --weekly")
    with Client(access) as client:
        if wanted.weekly:
            return service_digest(client, end, now)
        if wanted.incident is not None:
            return service.incident_facts(client, wanted.incident, now)
        assert start is not None
        return service.period_facts(client, start, now if end is None else end, now)


def _form(path: Path) -> Form:
    """How a file is written, by its name. Raises UsageError."""
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"--out: {path} must end in .html, .json or .txt")
    common.existing_folder_or_new(path.parent)
    if path.is_dir():
        raise UsageError(f"--out: {path} is a folder; name a file in it")
    return form


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(content)
    draft.replace(path)


def _incidents(made: Facts | Digest) -> list[Record]:
    if isinstance(made, Digest):
        return [*made.top, *made.data_faults]
    return [*([] if made.incident is None else [made.incident]), *made.incidents, *made.data_faults]
