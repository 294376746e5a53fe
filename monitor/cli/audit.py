"""``audit``: check the chain of what was decided and done, export it, and look an event up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from monitor.cli import common
from monitor.cli.desk_options import JsonOption
from monitor.cli.desk_view import print_json
from monitor.config.settings import load_settings
from monitor.core.errors import UsageError

app = typer.Typer(
    help="Check the chain of what was decided and done, and export it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
keys = typer.Typer(help="The key that signs the chain's heads.", no_args_is_help=True)
app.add_typer(keys, name="keys")
MOST_SHOWN = 50
EPILOG = """\
**Examples**

`poisoning-monitor audit verify result`

`poisoning-monitor audit verify --config monitor.yaml --public-key audit.pub --anchors heads.jsonl`
"""
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
    wrong. Without --public-key a signature is only compared with the key that the record names.
    """
    from monitor.cli import wiring_audit  # noqa: PLC0415 - heavy imports, not needed for --help

    began = time.perf_counter()
    trust = wiring_audit.trust(public_key or [], anchors, restarts=accept_restarts)
    report = wiring_audit.verified(directory, load_settings(config), trust)
    seconds = time.perf_counter() - began
    if as_json:
        print_json(report.as_dict() | {"seconds": seconds})
    else:
        _print(report, seconds)
    return 1 if report.findings else 0


def _print(report: Any, seconds: float) -> None:
    out = common.console()
    decisions = sum(chain.decisions for chain in report.chains)
    table = Table(
        title=f"{decisions:,} decisions in {seconds:.1f} s", title_justify="left", box=box.SIMPLE,
        pad_edge=False,
    )  # fmt: skip
    for name in ("chain", "records", "decisions as written", "head"):
        table.add_column(name, justify="left" if name in ("chain", "head") else "right")
    for chain in report.chains:
        head = f"{chain.head.seq} {chain.head.hash[:16]}"
        table.add_row(Text(chain.chain), f"{chain.records:,}", f"{chain.decisions:,}", head)
    out.print(table)
    for chain in report.chains:
        if chain.uncovered:
            out.print(f"{chain.uncovered:,} decisions are from before chain {chain.chain} began")
        if chain.expired:
            out.print(f"{chain.expired:,} decisions of {chain.chain} are not kept any more")
    for note in report.notes:
        out.print(Text(note))
    _print_keys(out, report)
    for finding in report.findings[:MOST_SHOWN]:
        out.print(Text(f"{finding.kind}: {finding.text}"))
    more = len(report.findings) - MOST_SHOWN
    if more > 0:
        out.print(f"and {more:,} more; --json tells all")
    wrong = (
        f"{len(report.findings):,} things are wrong" if report.findings else "the chain is whole"
    )
    out.print(wrong)


def _print_keys(out: Any, report: Any) -> None:
    for key, count in report.keys.items():
        vouched = "" if report.trusted else "; whose that is --public-key tells"
        out.print(f"{count:,} records are signed by key {key}{vouched}")
    if not report.keys:
        out.print("nothing is signed: whoever could write all of it could have written it anew")


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
