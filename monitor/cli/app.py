"""The command line: ``poisoning-monitor`` and ``python -m monitor``."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from monitor.cli import (
    audit,
    blast,
    checkpoint,
    common,
    demo,
    drill,
    incident_report,
    incidents,
    inject,
    keys,
    policy,
    quarantine,
    replay,
    run,
    token,
)

HELP = """\
Stands between labelled feedback and the online models that learn from it.

Reads every labelled event, works out how unusual it is for its class, its source and the moment,
and lets it through, flags it or holds it back, each time with a reason.

New here? Start with `poisoning-monitor demo`: a real stream with an attack in it, nothing to set
up. Then `replay` judges a file of your own, and `run` is the service; `policy` and `quarantine`
tune it and review what it holds back while it runs; `incidents` says what is going on, `report`
writes it down, `blast` says what a source has already taught the model, and `drill` tries an
attack on it. `keys` decides who may sign events.
"""

EPILOG = """\
Exit codes: 0 done, 1 a check failed or the service refused, 2 bad usage, input or setting, 3 input
or output failed (start it again: nothing is lost) or the service is not reached, 4 a detector
failed and gate.on_detector_error is stop, 130 interrupted.
"""

app = typer.Typer(
    name=common.PACKAGE,
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)
app.command("demo", epilog=demo.EPILOG)(demo.command)
app.command("replay", epilog=replay.EPILOG)(replay.command)
app.command("inject", epilog=inject.EPILOG)(inject.command)
app.command("run", epilog=run.EPILOG)(run.command)
app.command("drill", epilog=drill.EPILOG)(drill.command)
app.command("report", epilog=incident_report.EPILOG)(incident_report.command)
app.add_typer(policy.app, name="policy")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(incidents.app, name="incidents")
app.command("blast", epilog=blast.EPILOG)(blast.command)
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(keys.app, name="keys")
app.add_typer(token.app, name="token")
app.add_typer(audit.app, name="audit")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{common.PACKAGE} {common.version()}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    pass


def _fail(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    if text:
        print("error:", " ".join(text.split()), file=sys.stderr)
    return code


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Expected errors become one line on standard error."""
    debug = "--debug" in arguments
    command = typer.main.get_command(app)
    try:
        code = command.main(list(arguments), prog_name=common.PACKAGE, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return common.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; keep the interpreter from complaining at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _fail(*common.explained(error, debug), debug)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the console script."""
    sys.exit(execute(sys.argv[1:]))
