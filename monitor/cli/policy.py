"""``policy``: look at the live policy and change it, from a terminal."""

from __future__ import annotations

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
    FileOption,
    JsonOption,
    UnsetOption,
    WhyOption,
    YesOption,
    agreed,
    document,
    reason,
)
from monitor.cli.desk_view import (
    diff_table,
    heading,
    history_table,
    plain,
    policy_table,
    print_json,
    print_whatif,
    table,
    when,
)
from monitor.core.errors import UsageError

EPILOG = """\
**Examples**

`poisoning-monitor policy set flag_at=0.02 detectors.novelty.mode=alert --why "Too many alarms"`

`poisoning-monitor policy whatif quarantine_at=0.005`

`poisoning-monitor policy rollback 4 --why "Version 5 held honest events"`

The address comes from --url or MONITOR_URL, the token from --token or MONITOR_TOKEN.
Exit codes: 0 done, 1 refused or somebody was faster, 2 bad usage or value, 3 service unreachable.
"""

app = typer.Typer(
    help="Look at the live policy and change it.", no_args_is_help=True, rich_markup_mode="markdown"
)
ChangesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Dotted key and value in YAML."),
]


@app.command("show", epilog=EPILOG)
def show(
    *,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", help="An earlier version.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Show the policy that holds now, and by which version each instance judges."""
    with Client(Access(url, token, ca_file, client_cert)) as client:
        path = "/v1/policy" if version is None else f"/v1/policy/versions/{version}"
        change = client.get(path)
        applied = client.get("/v1/policy/applied") if version is None else None
    if as_json:
        print_json(change)
        return
    out = common.console()
    out.print(heading(change))
    out.print(policy_table(change["policy"]))
    if applied is not None and applied["instances"]:
        instances = table("", "instance", "judges by", "since", right=("judges by",))
        for one in applied["instances"]:
            instances.add_row(plain(one["instance"]), str(one["version"]), when(one["when"]))
        out.print(instances)


@app.command("history")
def history(
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")] = 20,
    before: Annotated[
        int | None, typer.Option("--before", metavar="N", help="Only versions below this.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Show who changed the policy, when and why; proposals that wait stand above."""
    with Client(Access(url, token, ca_file, client_cert)) as client:
        found = client.get("/v1/policy/history", limit=limit, before=before)
        waiting = client.get("/v1/policy/waiting")["waiting"]
    if as_json:
        print_json(found | {"waiting": waiting})
        return
    out = common.console()
    if waiting:
        out.print(history_table(waiting, "waiting for a second person"))
    out.print(history_table(found["versions"], "applied versions"))


@app.command("diff")
def diff(
    *,
    a: Annotated[
        int | None, typer.Argument(metavar="[A]", help="A version; by default the one before B.")
    ] = None,
    b: Annotated[
        int | None, typer.Argument(metavar="[B]", help="A version; by default the latest.")
    ] = None,
    file: FileOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Show what differs between two versions, or between the present one and a file."""
    if file is not None and a is not None:
        raise UsageError("--file is compared with the present version; name no other")
    with Client(Access(url, token, ca_file, client_cert)) as client:
        if file is not None:
            found = client.post("/v1/policy/preview", {"policy": document({}, (), None, file)})
            title = f"{file} against version {found['base']}"
        else:
            last = client.get("/v1/policy")["version"] if b is None else b
            first = max(1, last - 1) if a is None else a
            found = client.get("/v1/policy/diff", a=first, b=last)
            title = f"version {first} to {last}"
    if as_json:
        print_json(found)
    else:
        _print_differences(found["differences"], title)


@app.command("whatif")
def whatif(
    changes: ChangesArgument = None,
    *,
    unset: UnsetOption = None,
    file: FileOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Show what another policy would have made of the latest events. Changes nothing."""
    with Client(Access(url, token, ca_file, client_cert)) as client:
        present = client.get("/v1/policy")
        wanted = document(present["policy"], changes or (), unset, file)
        result = client.post("/v1/policy/whatif", {"policy": wanted})
    if as_json:
        print_json(result)
    else:
        print_whatif(common.console(), result)


@app.command("set", epilog=EPILOG)
def set_(
    changes: ChangesArgument = None,
    *,
    unset: UnsetOption = None,
    file: FileOption = None,
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
    """Change the policy on every instance, after showing what that would do."""
    with Client(Access(url, token, ca_file, client_cert)) as client:
        present = client.get("/v1/policy")
        wanted = document(present["policy"], changes or (), unset, file)
        found = client.post("/v1/policy/preview", {"policy": wanted})
        differences = found["differences"]
        if dry_run or not differences:
            _say_dry(client, wanted, found, as_json)
            return
        if not as_json:
            _print_differences(differences, f"against version {present['version']}")
        because = reason(why)
        agreed("Apply this?", yes)
        body = {"policy": wanted, "why": because}
        made = client.change("PUT", "/v1/policy", body, present["version"])
    _say_made(made, as_json)


def _say_dry(client: Client, wanted: dict[str, Any], found: dict[str, Any], as_json: bool) -> None:
    if not found["differences"]:
        if as_json:
            print_json(found)
        else:
            typer.echo("nothing would change")
        return
    result = client.post("/v1/policy/whatif", {"policy": wanted})
    if as_json:
        print_json(found | {"whatif": result})
        return
    _print_differences(found["differences"], f"against version {found['base']}")
    print_whatif(common.console(), result)


@app.command("rollback")
def rollback(
    *,
    to: Annotated[int, typer.Argument(metavar="VERSION", help="Whose document comes back.")],
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
    """Make an earlier version's document the next version.

    Keys and the rules for sources stay as they are now; where nothing else differs no version is
    made.
    """
    with Client(Access(url, token, ca_file, client_cert)) as client:
        present = client.get("/v1/policy")["version"]
        found = client.get("/v1/policy/diff", a=present, b=to)
        if dry_run:
            if as_json:
                print_json(found)
            else:
                _print_differences(_rolled(found["differences"]), f"version {present} to {to}")
            return
        if not as_json:
            _print_differences(_rolled(found["differences"]), f"version {present} to {to}")
        because = reason(why)
        agreed(f"Go back to version {to}?", yes)
        body = {"to": to, "why": because}
        made = client.change("POST", "/v1/policy/rollback", body, present)
    _say_made(made, as_json)
    if not as_json and len(_rolled(found["differences"])) < len(found["differences"]):
        typer.echo("keys and the rules for sources were left as they are now")


ProposalArgument = Annotated[
    str | None, typer.Argument(metavar="[PROPOSAL]", help="By default the only one that waits.")
]


@app.command("approve")
def approve(
    *,
    proposal: ProposalArgument = None,
    yes: YesOption = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Apply somebody else's proposal."""
    with Client(Access(url, token, ca_file, client_cert)) as client:
        meant = _waiting(client, proposal)
        if not as_json:
            common.console().print(heading(meant))
            found = client.post("/v1/policy/preview", {"policy": meant["policy"]})
            _print_differences(found["differences"], f"against version {found['base']}")
        agreed("Apply this?", yes, has_dry_run=False)
        made = client.post(f"/v1/policy/waiting/{meant['proposal']}/approve")
    _say_made(made, as_json)


@app.command("reject")
def reject(
    *,
    proposal: ProposalArgument = None,
    why: WhyOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Drop a proposal that waits."""
    with Client(Access(url, token, ca_file, client_cert)) as client:
        meant = _waiting(client, proposal)
        path = f"/v1/policy/waiting/{meant['proposal']}/reject"
        made = client.post(path, {"why": reason(why)})
    _say_made(made, as_json)


def _waiting(client: Client, proposal: str | None) -> dict[str, Any]:
    """The proposal that is meant. Raises UsageError."""
    waiting = client.get("/v1/policy/waiting")["waiting"]
    names = ", ".join(one["proposal"] for one in waiting)
    if proposal is None and len(waiting) == 1:
        return dict(waiting[0])
    for one in waiting:
        if one["proposal"] == proposal:
            return dict(one)
    if not waiting:
        raise UsageError("no proposal waits")
    raise UsageError(f"name one of the proposals that wait: {names}")


def _rolled(differences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a rollback would change: keys and rules for sources stay as they are."""
    return [one for one in differences if not one["path"].startswith("provenance")]


def _print_differences(differences: list[dict[str, Any]], title: str) -> None:
    if differences:
        common.console().print(diff_table(differences, title))
    else:
        typer.echo(f"{title}: nothing differs")


def _say_made(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    words = {
        "applied": f"version {made['version']} holds now",
        "unchanged": f"nothing would change by it: version {made['version']} still holds",
        "waiting": f"waits for a second person: policy approve {made['proposal']}",
        "rejected": f"{made['proposal']} is dropped",
    }
    common.console().print(plain(words.get(made["state"], made["state"])))
