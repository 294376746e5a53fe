"""``replay``: judge a recorded stream and write where each event goes, and a report."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from monitor.cli import common
from monitor.cli.inputs import Columns, open_inputs
from monitor.config.settings import Settings, load_policy, load_settings, with_policy
from monitor.core.errors import UsageError
from monitor.core.ports import CommitUnit, Observer

DECISIONS = "decisions.jsonl"
SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How a replay shows itself, and what goes with its input."""

    as_json: bool = False
    report: bool = True
    overwrite: bool = False
    headers: Path | None = None


class _Advance(Protocol):
    def __call__(self, events: int) -> None: ...


class ProgressObserver:
    """Tells a progress display how many events each commit brought."""

    def __init__(self, advance: _Advance) -> None:
        self._advance = advance

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Move the display on."""
        self._advance(sum(len(part.raw) for part in unit.parts))


@contextmanager
def progress_display(
    console: Console, total: int | None, done: int, *, doing: str = "judging", did: str = "judged"
) -> Iterator[_Advance]:
    """A bar on a terminal; elsewhere a line for every tenth of the way."""
    if console.is_terminal:
        with _bar(console, total is not None) as progress:
            task = progress.add_task(doing, total=total, completed=done)
            yield lambda events: progress.advance(task, events)
        return
    step = max(1, (total or 1_000_000) // 10)
    seen = done

    def plain(events: int) -> None:
        nonlocal seen
        before, seen = seen, seen + events
        if seen // step > before // step and total != seen:
            of = f" of {total:,}" if total else ""
            console.print(f"{seen:,}{of} events {did}")

    yield plain


def _bar(console: Console, known: bool) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn() if known else TextColumn("{task.completed} events"),
        TimeElapsedColumn(),
        *((TextColumn("left"), TimeRemainingColumn()) if known else ()),
    )
    return Progress(*columns, console=console, transient=True)


def replay(
    inputs: list[str], out: Path, columns: Columns, settings: Settings, options: ReplayOptions
) -> int:
    """Judge ``inputs`` into the folder ``out``; the exit code.

    Raises
    ------
    UsageError
        For an input or folder that cannot be used.
    TransportError
        When the disk fails.
    """
    from monitor.cli import wiring, wiring_audit  # noqa: PLC0415 - heavy, not needed for --help

    console = common.console(err=True)
    common.existing_folder_or_new(out)
    before = None if options.overwrite else wiring.earlier_run(out)
    if before is not None and before.finished and not (out / SUMMARY).exists():
        if not (out / common.INCIDENTS).exists():
            common.write_incidents(out, common.told_incidents(out))
        finish(out, inputs, settings, common.Pace(), options, console=console)
        return 0
    total: int | None = None
    if inputs == ["-"]:
        if before is not None:
            raise UsageError(
                f"{out} holds an earlier run, and standard input cannot be read again from where "
                "it stopped: give another folder, or --overwrite to start over"
            )
        source: Any = wiring.stdin_lines()
    else:
        with _status(console, "reading the input"):
            source = open_inputs(inputs, columns)
            total = source.count()
        if source.unsourced:
            console.print(
                f"warning: {escape(', '.join(source.unsourced))}: no column is called source, so "
                "the file counts as one source, and may be suspected as one; name the column that "
                "says who supplied each event with --source-from COLUMN"
            )
    transport = wiring.replay_transport(
        source, out, settings, overwrite=options.overwrite, headers=options.headers
    )
    if options.headers is None and settings.policy.provenance.is_used:
        console.print(
            "this policy looks at signatures and a file has none: give --headers FILE, which "
            "`keys sign` prints, or leave policy.provenance out"
        )
    done = 0 if before is None or before.finished else before.next_offset
    if done:
        console.print(f"going on after line {done:,}, where an earlier run stopped")
    pace, stop = common.Pace(), threading.Event()
    with (
        common.stop_on_signals(stop) as signals,
        progress_display(console, total, done) as advance,
    ):
        board = wiring.make_incidents()
        observers: list[Observer] = [pace, ProgressObserver(advance), board]
        sealer = wiring_audit.make_sealer(settings, transport)
        observers += [] if sealer is None else [sealer]
        service = wiring.make_service(
            settings, wiring.make_gate(settings, local=True), transport, observers=observers
        )
        pace.start()
        service.run(stop)
        if sealer is not None:
            sealer.start()
            wiring_audit.end(sealer)
    if signals:
        again = "" if inputs == ["-"] else "; the same command goes on from there"
        console.print(f"interrupted after {done + pace.events:,} events{again}")
        return common.INTERRUPTED
    common.write_incidents(out, board.snapshot().incidents)
    finish(out, inputs, settings, pace, options, resumed_at=done, console=console)
    return 0


def _status(console: Console, text: str) -> Any:
    return console.status(text) if console.is_terminal else nullcontext()


def finish(
    out: Path,
    inputs: list[str],
    settings: Settings,
    pace: common.Pace,
    options: ReplayOptions,
    *,
    resumed_at: int = 0,
    console: Console,
) -> None:
    """Write summary, incidents and report of a finished run, and say where they are."""
    from monitor.cli import wiring  # noqa: PLC0415
    from monitor.cli.report import write_report  # noqa: PLC0415
    from monitor.cli.report_data import read_decisions, tally  # noqa: PLC0415

    with _status(console, "counting"):
        counted = tally(read_decisions(out / DECISIONS))
        summary: dict[str, Any] = {
            "inputs": inputs,
            **counted.as_dict(),
            **pace.as_dict(),
            "resumed_at_line": resumed_at,
            "policy": settings.policy.model_dump(mode="json"),
            "settings": wiring.deciding(settings),
            "versions": common.versions(),
        }
        common.write_json(out / SUMMARY, summary)
        if options.report:
            write_report(out / "report.html", counted, summary, speed=pace.points)
    if options.as_json:
        sys.stdout.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    shown = common.console()
    rate = f"{summary['events_per_second']:,.0f} events/s"
    shown.print(common.verdict_table(counted, f"{counted.events:,} events, {rate}"))
    where = "report.html" if options.report else SUMMARY
    shown.print(f"see {escape(str(out / where))}")


def feature_names(text: str | None) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def _column_option(option: str, what: str, metavar: str = "COLUMN") -> Any:
    """An option that names a column of a table."""
    return typer.Option(
        option, metavar=metavar, help=what, rich_help_panel="Columns of tables (CSV, Parquet)"
    )


LabelsOption = Annotated[
    str | None,
    _column_option("--labels-from", "The label. Usual names: label, class, target, y."),
]
SourceOption = Annotated[
    str | None,
    _column_option("--source-from", "Who supplied it. Usual name: source; else the file counts."),
]
IdOption = Annotated[
    str | None, _column_option("--id-from", "Its id. Usual name: id; else file name and row.")
]
TimeOption = Annotated[
    str | None, _column_option("--ts-from", "When it happened. Usual names: ts, timestamp.")
]
SubjectOption = Annotated[
    str | None,
    _column_option("--subject-from", "What it is about, e.g. the item. Usual name: subject."),
]
FeaturesOption = Annotated[
    str | None, _column_option("--features", "The features. Else all other columns.", "COLUMN,...")
]


def command(
    *,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="JSONL, CSV, TSV or Parquet files (.gz and .zst too), river:NAME for a data set "
            "inside river (river:Phishing), or - for standard input. Read in the order given.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the results; made if absent.")
    ],
    policy: common.PolicyOption = None,
    mode: common.ModeOption = None,
    flag_at: common.FlagAtOption = None,
    quarantine_at: common.QuarantineAtOption = None,
    config: common.ConfigOption = None,
    batch_events: Annotated[
        int | None,
        typer.Option("--batch-events", metavar="N", help="Events judged together, at most."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", metavar="", help="Delete the results of an earlier run in DIR."
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="Print the summary as JSON instead of a table."),
    ] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", metavar="", help="Write no report.html.")
    ] = False,
    labels_from: LabelsOption = None,
    source_from: SourceOption = None,
    id_from: IdOption = None,
    ts_from: TimeOption = None,
    subject_from: SubjectOption = None,
    features: FeaturesOption = None,
    headers: Annotated[
        Path | None,
        typer.Option(
            "--headers",
            metavar="FILE",
            help="Signatures by line, as `keys sign` prints them.",
        ),
    ] = None,
    debug: common.DebugOption = False,
) -> int:
    """Judge a recorded stream: which events would have been let through, which held back, and why.

    DIR gets accepted.jsonl, quarantined.jsonl and invalid.jsonl (every input line is in exactly
    one of them, unchanged and in order), decisions.jsonl (one line an event, with its risk and
    the reasons), summary.json and report.html (plots, opens in any browser). A replay that was
    stopped goes on where it was when the same command is given again.
    """
    settings = load_settings(config, options={"batch.max_events": batch_events})
    base = load_policy(policy) if policy is not None else None
    changes = {"mode": mode, "flag_at": flag_at, "quarantine_at": quarantine_at}
    settings = with_policy(settings, base, changes)
    columns = Columns(
        labels_from, source_from, id_from, ts_from, subject_from, feature_names(features)
    )
    if str(out) == "-":
        raise UsageError("--out takes a folder; for pipes see `run --from - --to -`")
    options = ReplayOptions(as_json, not no_report, overwrite, headers)
    return replay(inputs, out, columns, settings, options)


EPILOG = """\
**Examples**

`poisoning-monitor replay events.jsonl.gz --out result`

`poisoning-monitor replay card.csv --labels-from fraud --source-from merchant --out result`

`poisoning-monitor replay river:Phishing --out result --mode shadow --json`
"""

Command = Callable[..., int]
