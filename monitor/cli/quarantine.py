"""``quarantine``: look at what was held back and decide about it, from a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

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
from monitor.cli.desk_options import (
    DryOption,
    JsonOption,
    WhyOption,
    YesOption,
    agreed,
    reason,
)
from monitor.cli.desk_view import counted, held_table, print_event, print_json, print_outcome, share
from monitor.core.errors import UsageError

EPILOG = """\
**Examples**

`poisoning-monitor quarantine list --status open --family sybil`

`poisoning-monitor quarantine release 0-1041 2-998 --why "The merchant explained it"`

`poisoning-monitor quarantine confirm --source ring-1-003 --why "The ring of last week"`

The address comes from --url or MONITOR_URL, the token from --token or MONITOR_TOKEN.
Exit codes: 0 done, 1 refused, 2 bad usage or value, 3 service unreachable.
"""

app = typer.Typer(
    help="Look at what was held back and decide about it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
KeysArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys, as `list` shows them.")
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Held since: Unix seconds or RFC 3339."),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Held before.")]
SourceOption = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Of a source.")]
SubjectOption = Annotated[
    str | None, typer.Option("--subject", metavar="NAME", help="About a subject.")
]
LabelOption = Annotated[str | None, typer.Option("--label", metavar="NAME", help="With a label.")]
DetectorOption = Annotated[
    str | None, typer.Option("--detector", metavar="NAME", help="Named in the reasons.")
]
FamilyOption = Annotated[
    str | None, typer.Option("--family", metavar="NAME", help="Whose channel spoke against it.")
]
RiskOption = Annotated[
    float | None, typer.Option("--risk", metavar="R", help="With at least this risk.")
]
IncidentOption = Annotated[
    str | None, typer.Option("--incident", metavar="ID", help="Of an incident.")
]
StatusOption = Annotated[
    str | None, typer.Option("--status", metavar="WORD", help="open, released or confirmed.")
]
TextOption = Annotated[
    str | None, typer.Option("--text", metavar="PART", help="Part of id, source, subject or label.")
]


def _filter(**given: Any) -> dict[str, Any]:
    """The filter as the interface takes it."""
    given["risk_at_least"] = given.pop("risk", None)
    return {name: value for name, value in given.items() if value not in (None, [], ())}


@app.command("list", epilog=EPILOG)
def list_(
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    subject: SubjectOption = None,
    label: LabelOption = None,
    detector: DetectorOption = None,
    family: FamilyOption = None,
    risk: RiskOption = None,
    incident: IncidentOption = None,
    status: StatusOption = None,
    text: TextOption = None,
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
    """List held events, the latest first."""
    chosen = _filter(
        since=since, until=until, source=source, subject=subject, label=label, detector=detector,
        family=family, risk=risk, incident=incident, status=status, text=text,
    )  # fmt: skip
    with Client(Access(url, token, ca_file, client_cert)) as client:
        page = client.get("/v1/quarantine", **chosen, limit=limit, cursor=cursor)
        observed = client.get("/v1/quarantine/observed")
    if as_json:
        print_json(page)
        return
    out = common.console()
    out.print(held_table(page["items"], page["total"]))
    if page["cursor"]:
        out.print(f"more: --cursor {page['cursor']}", markup=False)
    out.print(_seen(observed))


def _seen(observed: dict[str, Any]) -> str:
    told = f"{share(observed['promised'])} of honest events promised to be held"
    if observed["estimated"] is None:
        return f"{told}; no reviews yet say what it is"
    return (
        f"{told}; by {observed['released'] + observed['confirmed']:,} reviews at least "
        f"{share(observed['at_least'])}, about {share(observed['estimated'])}"
    )


@app.command("show")
def show(
    *,
    key: Annotated[str, typer.Argument(metavar="KEY", help="As `list` shows it.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Show one held event: what it said and why it was held."""
    with Client(Access(url, token, ca_file, client_cert)) as client:
        held = client.get(f"/v1/quarantine/events/{_key(key)}")
    if as_json:
        print_json(held)
    else:
        print_event(common.console(), held)


def _key(text: str) -> str:
    partition, dash, offset = text.partition("-")
    if not dash or not partition.isdecimal() or not offset.isdecimal():
        raise UsageError(f"{text!r}: a key is partition-offset, such as 0-1041")
    return text


@app.command("release", epilog=EPILOG)
def release(
    keys: KeysArgument = None,
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    subject: SubjectOption = None,
    label: LabelOption = None,
    detector: DetectorOption = None,
    family: FamilyOption = None,
    risk: RiskOption = None,
    incident: IncidentOption = None,
    text: TextOption = None,
    why: WhyOption = None,
    dry_run: DryOption = False,
    yes: YesOption = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Send held events to the learner, each exactly once; they count as false alarms."""
    chosen = _filter(
        since=since, until=until, source=source, subject=subject, label=label, detector=detector,
        family=family, risk=risk, incident=incident, text=text,
    )  # fmt: skip
    with Client(Access(url, token, ca_file, client_cert)) as client:
        _review(client, "release", _meant(keys, chosen), (why, dry_run, yes, as_json))


@app.command("confirm", epilog=EPILOG)
def confirm(
    keys: KeysArgument = None,
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    subject: SubjectOption = None,
    label: LabelOption = None,
    detector: DetectorOption = None,
    family: FamilyOption = None,
    risk: RiskOption = None,
    incident: IncidentOption = None,
    text: TextOption = None,
    why: WhyOption = None,
    dry_run: DryOption = False,
    yes: YesOption = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Mark held events as poison; that counts against their sources from now on."""
    chosen = _filter(
        since=since, until=until, source=source, subject=subject, label=label, detector=detector,
        family=family, risk=risk, incident=incident, text=text,
    )  # fmt: skip
    with Client(Access(url, token, ca_file, client_cert)) as client:
        _review(client, "confirm", _meant(keys, chosen), (why, dry_run, yes, as_json))


def _meant(keys: Sequence[str] | None, chosen: dict[str, Any]) -> dict[str, Any]:
    """Keys and filters together; at least one. Raises UsageError."""
    meant = chosen | ({"keys": [_key(key) for key in keys]} if keys else {})
    if not meant:
        raise UsageError("name keys, or a filter such as --source or --family")
    # Of a filter those that nobody has decided about; keys that are named are all meant.
    return meant if keys else meant | {"status": "open"}


def _review(
    client: Client, verb: str, meant: dict[str, Any], how: tuple[str | None, bool, bool, bool]
) -> None:
    """Look first, ask, then do exactly what was shown."""
    why, dry_run, yes, as_json = how
    path = f"/v1/quarantine/{verb}"
    out = common.console()
    ask = {"filter": meant, "why": "dry run", "dry_run": True}
    first = client.post(path, ask)
    if dry_run or not first["done"]:
        print_json(first) if as_json else print_outcome(out, first)
        return
    if not as_json and not yes:
        print_outcome(out, first)
    because = reason(why)
    agreed(f"{verb.capitalize()} {counted(len(first['done']))}?", yes)
    # More may have been held since: what was shown is what is done.
    done = client.post(path, {"filter": {"keys": first["done"]}, "why": because})
    print_json(done) if as_json else print_outcome(out, done)


@app.command("erase")
def erase(
    *,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Whose events to remove.")],
    why: WhyOption = None,
    dry_run: DryOption = False,
    yes: YesOption = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Remove what is stored of a source, for a privacy request. Takes the role admin."""
    path = "/v1/quarantine/erase"
    with Client(Access(url, token, ca_file, client_cert)) as client:
        found = client.post(path, {"source": source, "why": "dry run", "dry_run": True})
        if not dry_run:
            because = reason(why)
            agreed(f"Remove {counted(found['events'])} for good?", yes)
            found = client.post(path, {"source": source, "why": because})
    if as_json:
        print_json(found)
        return
    words = "would remove" if found["dry_run"] else "removed"
    said = f"{words} {counted(found['events'])}"
    typer.echo(f"{said}; what stands in topics ends with their retention")
