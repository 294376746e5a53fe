"""``drill``: try an attack on the running service, from a terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
from monitor.cli.desk_view import counted, plain, print_json, table, when
from monitor.core.drill import MAX_RATE_PER_SECOND, MAX_SECONDS
from monitor.core.errors import UsageError

EPILOG = """\
**Examples**

`poisoning-monitor drill --family backdoor --rate 0.5 --for 5m`

`poisoning-monitor drill --family label_flip --sources ordinary --for 90s --min-recall 0.5`

`poisoning-monitor drill --list`

Families: label_flip, backdoor, clean_label, gradient, boiling_frog, sybil, shilling, replay.
Exit codes: 0 done, 1 refused, failed, nothing judged, or less recall than --min-recall, 2 bad usage
or value, 3 service unreachable.
"""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_POLL_SECONDS = 0.5


def seconds_of(text: str) -> float:
    """A length of time: 90, 90s, 5m, 1h. Raises UsageError.

    Examples
    --------
    >>> seconds_of("5m"), seconds_of("90")
    (300.0, 90.0)
    """
    found = _LENGTH.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--for: {text!r} is no length of time; write 90s, 5m or 1h")
    most = f"above 0 and at most {MAX_SECONDS:g} seconds"
    return common.finite("--for", float(found[1]), most) * _UNITS[found[2] or "s"]


def command(
    *,
    family: Annotated[
        str | None, typer.Option("--family", metavar="NAME", help="What to try, see below.")
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", metavar="N", help="Canaries a second, on average.")
    ] = 1.0,
    length: Annotated[
        str, typer.Option("--for", metavar="TIME", help="For how long: 90s, 5m, 1h.")
    ] = "60s",
    attack: Annotated[
        str,
        typer.Option(
            "--attack", metavar="NAME", help="One of inject's, of the family; else its usual one."
        ),
    ] = "",
    sources: Annotated[
        str,
        typer.Option(
            "--sources",
            metavar="WHO",
            help="Who sends them: a number of made-up accounts, ordinary, fresh, hijacked.",
        ),
    ] = "5",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same choice.")] = 0,
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="For the audit trail.")
    ] = "drill",
    min_recall: Annotated[
        float | None,
        typer.Option(
            "--min-recall",
            metavar="SHARE",
            min=0,
            max=1,
            help="Exit with 1 below this, or when nothing was judged.",
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", metavar="", help="Show past drills.")] = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> int:
    """Try an attack on the running service, and see what it would catch today.

    Marked events, made from recent ones, are judged among the real ones on a copy of what the
    service has learned. They reach no topic, and nothing is learned from them.
    """
    common.finite("--rate", rate, f"above 0 and at most {MAX_RATE_PER_SECOND:g}")
    if min_recall is not None:
        common.finite("--min-recall", min_recall, "from 0 to 1")
    with Client(Access(url, token, ca_file, client_cert)) as client:
        if listed:
            _show_all(client.get("/v1/drills")["drills"], as_json)
            return 0
        if family is None:
            raise UsageError("--family: say what to try, such as backdoor; or --list")
        asked: dict[str, Any] = {
            "family": family,
            "attack": attack,
            "rate_per_second": rate,
            "seconds": seconds_of(length),
            "sources": sources,
            "seed": seed,
            "why": why,
        }
        drill = _watched(client, client.post("/v1/drills", asked), quiet=as_json)
    if as_json:
        print_json(drill)
    else:
        _show(drill)
    return _code(drill, min_recall)


def _code(drill: Mapping[str, Any], min_recall: float | None) -> int:
    """The exit code; a drill that judged nothing has shown nothing, whatever share is wanted."""
    recall = drill["recall"]
    if min_recall is None:
        return 1 if drill["state"] == "failed" else 0
    if recall is None:
        why = plain(drill["note"] or "The service says no more.", 600)
        typer.echo(f"--min-recall: no canary was judged, so there is no recall. {why}", err=True)
        return 1
    return 1 if recall < min_recall or drill["state"] == "failed" else 0


def _watched(client: Client, drill: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """The drill when it has ended; Ctrl-C stops it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    path = f"/v1/drills/{drill['id']}"
    with Progress(*columns, console=common.console(err=True), disable=quiet) as progress:
        task = progress.add_task("canaries judged", total=drill["wanted"])
        try:
            while drill["state"] == "running":
                time.sleep(_POLL_SECONDS)
                drill = client.get(path)
                progress.update(task, completed=drill["sent"])
        except KeyboardInterrupt:
            client.post(f"{path}/stop")
            raise
    return drill


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _show(drill: dict[str, Any]) -> None:
    out = common.console()
    plan = drill["plan"]
    rows = table(f"drill {drill['id']}: {plan['family']}, {drill['state']}", "", " ", right=(" ",))
    sent = drill["sent"]
    for name, value in (
        ("canaries judged", f"{sent:,} of {drill['wanted']:,}" if sent else "none"),
        ("beside real events", f"{drill['events']:,}"),
        ("held back", f"{drill['held']:,}  {_share(drill['recall'])}"),
        ("at least flagged", f"{drill['held'] + drill['flagged']:,}  {_share(drill['noticed'])}"),
        ("canaries before the first was held", _number(drill["delay_canaries"])),
        ("seconds until then", _number(drill["delay_seconds"], ".1f")),
        ("policy version", f"{drill['policy_version']}"),
    ):
        rows.add_row(name, value)
    out.print(rows)
    if drill["detectors"]:
        spoke = sorted(drill["detectors"].items(), key=lambda pair: (-pair[1], pair[0]))
        out.print("evidence by " + ", ".join(f"{plain(name)} ({n:,})" for name, n in spoke))
    if drill["skipped_events"]:
        left = counted(drill["skipped_events"], "real event", "was")
        out.print(f"{left} left out: the copy was too slow")
    if drill["note"]:
        out.print(plain(drill["note"], 600))


def _number(value: float | None, form: str = ",") -> str:
    return "–" if value is None else format(value, form)


def _show_all(drills: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"drills": drills})
        return
    names = ("began", "family", "who", "state", "canaries", "held", "flagged")
    rows = table("", *names, right=("canaries", "held", "flagged"))
    for drill in drills:
        rows.add_row(
            when(drill["started_at"]),
            plain(drill["plan"]["family"]),
            plain(drill["who"]),
            drill["state"],
            f"{drill['sent']:,}",
            _share(drill["recall"]),
            _share(None if drill["noticed"] is None else drill["noticed"] - drill["recall"]),
        )
    common.console().print(rows)
