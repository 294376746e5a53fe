"""``audit``: check the chain of what was decided and done, export it, and look an event up."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from monitor.cli import common
from monitor.cli.desk_options import JsonOption
from monitor.cli.desk_view import counted, plain, print_json
from monitor.config.settings import load_settings
from monitor.core.errors import UsageError
from monitor.state.audit_deeds import done_with

app = typer.Typer(
    help="Check the chain of what was decided and done, and export it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
keys = typer.Typer(help="The key that signs the chain's heads.", no_args_is_help=True)
app.add_typer(keys, name="keys")
MOST_SHOWN = 50
_ENDS = ("begins", "ends")
EPILOG = """\
**Examples**

`poisoning-monitor audit verify result`

`poisoning-monitor audit verify --config monitor.yaml --public-key audit.pub --anchors heads.jsonl`
"""
EXPORT_EPILOG = """\
**Example**

`poisoning-monitor audit export result --from 2026-05-01 --to 2026-05-02 --out may-1.jsonl`
"""
_OPEN = (
    "{} may go on within the period: no record is of --to or later, and no head was written down "
    "since. `audit verify --public-key` will say so. Choose an earlier --to, or export again later."
)
DirArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="Folder of a replay or a local service."),
]
PublicOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--public-key", metavar="FILE", help="A key that may have signed; repeat for more."
    ),
]
AnchorsOption = Annotated[
    Path | None,
    typer.Option("--anchors", metavar="FILE", help="Heads kept elsewhere (audit.anchor_file)."),
]


@app.command("verify", epilog=EPILOG)
def verify(
    *,
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="Folder of a replay or a local service, or a file that `audit export` wrote.",
        ),
    ] = None,
    config: common.ConfigOption = None,
    public_key: PublicOption = None,
    anchors: AnchorsOption = None,
    accept_restarts: Annotated[
        bool,
        typer.Option(
            "--accept-restarts",
            metavar="",
            help="Chains may have begun anew: state was reset.",
        ),
    ] = False,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> int:
    """Find records that were changed, dropped, inserted or moved, and say which.

    Without DIR the topics of --config are read, or its local folder. Exit code 1 when something is
    wrong. Without --public-key a signature is only compared with the key that the record names;
    with it something has to be signed. Without --anchors (or `audit.anchor_file` of --config) the
    last records of what people did can be missing unnoticed. Of a file that `audit export` wrote
    it finds what was left out, too; `audit export --help` says what that does not prove.
    """
    from monitor.cli import wiring_audit  # noqa: PLC0415 - heavy imports, not needed for --help

    began, settings = time.perf_counter(), load_settings(config)
    kept = settings.audit.anchor_file
    if anchors is None and kept and (directory is None or config is not None):
        anchors = Path(kept)
    trust = wiring_audit.trust(public_key or [], anchors, restarts=accept_restarts)
    report = wiring_audit.verified(directory, settings, trust)
    seconds = time.perf_counter() - began
    if as_json:
        print_json(report.as_dict() | {"seconds": seconds})
    else:
        _print(report, seconds)
    return 1 if report.findings else 0


def _print(report: Any, seconds: float) -> None:
    out = common.console()
    decisions = sum(chain.decisions for chain in report.chains)
    title = f"{counted(decisions, 'decision')} in {seconds:.1f} s"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    part = any(chain.begins for chain in report.chains)
    for name in ("chain", "records", "decisions as written", *(_ENDS if part else ()), "head"):
        right = name in ("records", "decisions as written")
        table.add_column(name, justify="right" if right else "left")
    for chain in report.chains:
        head, ends = f"{chain.head.seq} {chain.head.hash[:16]}", (chain.begins, chain.ends)
        row = _line(chain.chain), f"{chain.records:,}", f"{chain.decisions:,}"
        table.add_row(*row, *(ends if part else ()), head)
    out.print(table)
    if report.period:
        out.print(_line(report.period))
    for chain in report.chains:
        if chain.uncovered:
            early = counted(chain.uncovered, "decision", "is")
            out.print(_line(f"{early} from before chain {chain.chain} began"))
        if chain.expired:
            gone, be = counted(chain.expired, "decision"), "is" if chain.expired == 1 else "are"
            out.print(_line(f"{gone} of {chain.chain} {be} not kept any more"))
    for note in report.notes:
        out.print(_line(note))
    _print_keys(out, report)
    for finding in report.findings[:MOST_SHOWN]:
        out.print(_line(f"{finding.kind}: {finding.text}"))
    more = len(report.findings) - MOST_SHOWN
    if more > 0:
        out.print(f"and {more:,} more; --json tells all")
    wrong = len(report.findings)
    out.print(f"{counted(wrong, 'thing', 'is')} wrong" if wrong else "the chain is whole")


def _print_keys(out: Any, report: Any) -> None:
    for key, count in report.keys.items():
        vouched = "" if report.trusted else "; whose that is --public-key tells"
        out.print(f"{counted(count, 'record', 'is')} signed by key {key}{vouched}")
    if not report.keys:
        out.print("nothing is signed: whoever could write all of it could have written it anew")


@app.command("export", epilog=EXPORT_EPILOG)
def export(
    *,
    directory: DirArgument = None,
    since: Annotated[
        str, typer.Option("--from", metavar="TIME", help="From this time of the events on, UTC.")
    ],
    until: Annotated[
        str, typer.Option("--to", metavar="TIME", help="Up to this time, not including it.")
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="FILE", help="By default standard output, as -.")
    ] = "-",
    config: common.ConfigOption = None,
    debug: common.DebugOption = False,
) -> int:
    """Write decisions and what people did, with the records that prove them, as JSON lines.

    `audit verify FILE` finds, anywhere, with the public key alone, what was changed, added or left
    out. TIME is like 2026-05-01, 2026-05-01T12:00:00Z, or Unix seconds; that of a decision is its
    event's own, as the producer gave it, that of what people did the service's. Chains follow it
    roughly, so each is given from a record that is wholly before --from to one that is wholly
    behind --to, with all decisions between. Exit code 1 when one is not as the chain has it.

    Not proven: that no event farther off in the chain, or decided later, is of this time; what
    came after the last signed head; that no instance was left out with all its partitions, or the
    last of what its people did (`audit verify --anchors` finds both); that nobody keeps two chains.
    """
    from monitor.cli import wiring_audit  # noqa: PLC0415 - heavy

    start, stop = _time("--from", since), _time("--to", until)
    if start >= stop:
        raise UsageError("--from must be before --to")
    source = wiring_audit.source_of(directory, load_settings(config))
    made = wiring_audit.export_of(source, start, stop)
    with _opened(out) as stream:
        for row in made.rows():
            stream.write(row)
        stream.flush()
    told = f"{counted(made.decisions, 'decision')}, {made.beside:,} beside them as proof, "
    told += counted(made.records, "audit record")
    typer.echo(f"{told}, {made.unproven:,} not as the chain has them", err=True)
    if made.open:
        typer.echo(_OPEN.format(counted(len(made.open), "chain")), err=True)
    return 1 if made.unproven else 0


@contextlib.contextmanager
def _opened(out: str) -> Iterator[BinaryIO]:
    """Standard output, or a new file, which is gone again when it could not be written whole."""
    if out == "-":
        yield sys.stdout.buffer
        return
    path = Path(out)
    try:
        stream = path.open("xb")
    except FileExistsError:
        kind = "a folder; name a file in it" if path.is_dir() else (
            "there already, and an export overwrites nothing; name another file, or move it away"
        )  # fmt: skip
        raise UsageError(f"--out: {path} is {kind}") from None
    except FileNotFoundError:
        raise UsageError(f"--out: the folder {path.parent} is not there; make it first") from None
    try:
        with stream:
            yield stream
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _time(option: str, text: str) -> float:
    from monitor.admin.desk_schemas import moment  # noqa: PLC0415 - slow to import

    try:
        return float(moment(text))
    except ValueError as error:
        raise UsageError(f"{option}: {text!r} {error}") from None


@app.command("show")
def show(
    *,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="The event's own id.")],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder of a replay or a local service."),
    ] = None,
    config: common.ConfigOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> int:
    """Tell the life of an event: where it came from, what judged it, what people did with it.

    Without --dir the topics of --config are read, from their beginning, or its local folder.
    """
    from monitor.cli import wiring_audit  # noqa: PLC0415 - heavy

    found = wiring_audit.lives(directory, load_settings(config), identifier)
    if as_json:
        print_json({"events": found})
    else:
        out = common.console()
        for life in found:
            _print_life(out, life)
        if not found:
            out.print(Text(f"no event with the id {identifier!r} was decided about here"))
    return 0 if found else 1


def _print_life(out: Any, life: dict[str, Any]) -> None:
    place = next(name for name in ("line", "offset") if name in life)
    rows = {
        "event": f"{life['id']} of source {life['source']}",
        "place": f"{life['topic']}, partition {life['partition']}, {place} {life[place]}",
        "signed by": life["key_id"] or "nobody",
        "verdict": f"{life['verdict']}, action {life['action']}",
        "judged by": f"policy {life['policy_version']}, state {life['state'] or 'unknown'}, "
        f"version {life['software'] or 'unknown'}",
        "audit": "not in the chain as it is"
        if life["audit"] is None
        else f"record {life['audit']['record']} of {life['audit']['chain']}",
        "incident": life["incident"] or "none",
    }
    for reason in life["decision"].get("reasons", []):
        rows.setdefault("because", reason["text"])
    for name, text in rows.items():
        out.print(_line(f"{name:10} {text}"))
    for done in done_with(life):
        kind, said = "review" if done.is_review else "done", done.said
        where = f" (record {done.record['seq']} of {done.record['chain']})" if done.record else ""
        out.print(_line(f"{kind:10} {done.word} by {said['who']}: {said['why']}{where}"))


def _line(text: str) -> Text:
    """What strangers wrote: no markup, nothing that steers the terminal, and all of it."""
    return plain(text, len(text))


@keys.command("create")
def create(
    *,
    file: Annotated[
        Path, typer.Option("--file", metavar="FILE", help="Where the key goes; must not exist.")
    ],
    debug: common.DebugOption = False,
) -> None:
    """Make a key, readable by you only, and print its public half for those who verify."""
    from monitor.state.audit_keys import SigningKey  # noqa: PLC0415 - heavy

    key = SigningKey.create(file)
    typer.echo(key.public_pem(), nl=False)
    typer.echo(f"key {key.id} is in {file}; set audit.key_file to it", err=True)


@keys.command("public")
def public(
    *,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="By default audit.key_file.")
    ] = None,
    config: common.ConfigOption = None,
    debug: common.DebugOption = False,
) -> None:
    """Print the public half of a key."""
    from monitor.state.audit_keys import SigningKey  # noqa: PLC0415 - heavy

    name = load_settings(config).audit.key_file if file is None else str(file)
    if name is None:
        raise UsageError("say which key: --file FILE, or audit.key_file in the settings")
    typer.echo(SigningKey.load(Path(name)).public_pem(), nl=False)
