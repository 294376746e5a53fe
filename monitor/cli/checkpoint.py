"""``checkpoint``: tell of stored models, so that the last clean one can be named."""

from __future__ import annotations

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
from monitor.cli.desk_view import print_json
from monitor.core.errors import UsageError

EPILOG = """\
**Examples**

`poisoning-monitor checkpoint add fraud-0417 0-1204112 1-1198020`

`poisoning-monitor checkpoint list`
"""

app = typer.Typer(help="Tell of stored models and how far they have learned.", no_args_is_help=True)


@app.command("add", epilog=EPILOG)
def add(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the stored model.")],
    offsets: Annotated[
        list[str],
        typer.Argument(
            metavar="PARTITION-OFFSET...",
            help="For each partition of the accepted topic the first event that it has not "
            "learned; of a file 0 and the number of lines it has learned.",
        ),
    ],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="When it was stored, if not now."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Tell of a stored model. Its name stays with it: for another model choose another."""
    places = dict(_place(text) for text in offsets)
    if len(places) < len(offsets):
        raise UsageError("a partition is given twice: say once how far the model has learned it")
    body: dict[str, Any] = {"name": name, "offsets": places}
    if at is not None:
        try:
            body["ts"] = float(moment(at))
        except ValueError as error:
            raise UsageError(f"--at: {error}") from error
    with Client(Access(url, token, ca_file, client_cert)) as client:
        made = client.post("/v1/checkpoints", body)
    if as_json:
        print_json(made)
    else:
        typer.echo("known already, just so" if made["known"] else "noted")


def _place(text: str) -> tuple[str, int]:
    partition, dash, offset = text.partition("-")
    if not dash or not partition.isdecimal() or not offset.isdecimal():
        raise UsageError(f"{text!r}: write partition-offset, such as 0-1204112")
    return partition, int(offset)


@app.command("list", epilog=EPILOG)
def list_(
    *,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """List stored models, the latest first."""
    from monitor.cli.blast_view import checkpoint_table  # noqa: PLC0415 - not needed for --help

    with Client(Access(url, token, ca_file, client_cert)) as client:
        found = client.get("/v1/checkpoints")
    if as_json:
        print_json(found)
    else:
        common.console().print(checkpoint_table(found["checkpoints"]))
