"""``inject``: an attacked copy of a recorded stream, and the truth about each of its lines."""

from __future__ import annotations

import gzip
import io
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import orjson
import typer
import zstandard
from rich import box
from rich.markup import escape
from rich.table import Table

from monitor.cli import common
from monitor.cli.inputs import Columns, Joined, open_inputs
from monitor.cli.replay import (
    FeaturesOption,
    IdOption,
    LabelsOption,
    SourceOption,
    SubjectOption,
    TimeOption,
    feature_names,
    progress_display,
)
from monitor.core.errors import UsageError

TRUTH_ENDING = ".truth.jsonl"


@dataclass(frozen=True, slots=True)
class InjectOptions:
    """What to inject; the fields are those of :func:`monitor.runtime.inject.inject`."""

    attack: str
    rate: float = 0.03
    pattern: str = "burst"
    sources: str = "5"
    clean_prefix: float = 0.3
    snap: bool = False
    seed: int = 0
    honest_bursts: int = 0
    newcomers: float | None = None
    trigger_features: int = 3
    honest_sources: int = 0


def inject_into(
    inputs: list[str],
    out: Path,
    columns: Columns,
    options: InjectOptions,
    *,
    overwrite: bool = False,
    as_json: bool = False,
) -> int:
    """Write the attacked copy ``out`` and its truth file; the exit code.

    Raises
    ------
    UsageError
        For an attack, number, input or output that cannot be used.
    """
    from monitor.core.limits import Limits  # noqa: PLC0415 - heavy imports, not for --help
    from monitor.runtime.inject import check_options, inject  # noqa: PLC0415
    from monitor.runtime.inject import lines as injected  # noqa: PLC0415

    chosen: dict[str, Any] = {
        "rate": options.rate,
        "pattern": options.pattern,
        "colluders": options.sources,
        "clean_prefix": options.clean_prefix,
        "honest_bursts": options.honest_bursts,
        "newcomers": options.newcomers,
        "trigger_features": options.trigger_features,
    }
    check_options(options.attack, **chosen)
    truth = out.with_name(out.name + TRUTH_ENDING)
    source = None if inputs == ["-"] else open_inputs(inputs, columns)
    _check_outputs(out, truth, source, overwrite)
    console = common.console(err=True)
    total = None if source is None else source.count()
    lines = sys.stdin.buffer if source is None else source.open(0)
    with progress_display(console, total, 0, doing="reading", did="read") as step:
        plain = (line.removesuffix(b"\n") for line in lines) if source is None else lines
        recording = injected.read(plain, options.attack, step, limits=Limits())
    stream = injected.with_accounts(recording, options.honest_sources, options.seed)
    found = inject(stream, options.attack, snap=options.snap, seed=options.seed, **chosen)
    roles: Counter[str] = Counter()
    changed = count = 0
    hostile: list[int] = []
    expected = len(recording.lines) + int(found.inserted.sum())
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        _both(out, truth) as (events, truths),
        progress_display(console, expected, 0, doing="writing", did="written") as step,
    ):
        for one in injected.written(recording, found):
            events.write(one.line + b"\n")
            truths.write(orjson.dumps(one.truth) + b"\n")
            count += 1
            changed += one.changed
            roles[one.truth["role"]] += 1
            if one.truth["poison"]:
                hostile.append(count)
            step(1)
    rows = found.poison.nonzero()[0].tolist()
    summary = {
        "inputs": inputs,
        "out": str(out),
        "truth": str(truth),
        **{name: getattr(options, name) for name in InjectOptions.__dataclass_fields__},
        "lines": count,
        "events": len(found.stream),
        "unread_lines": recording.unread,
        "first_trouble": recording.trouble or None,
        "poison": len(hostile),
        "poison_share": round(len(hostile) / count, 6),
        "poison_sources": len({found.stream.source[row] for row in rows}),
        "first_poison_line": hostile[0],
        "last_poison_line": hostile[-1],
        "inserted_lines": int(found.inserted.sum()),
        "unchanged_lines": count - changed,
        "roles": dict(sorted(roles.items())),
        "versions": common.versions(),
    }
    if as_json:
        sys.stdout.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _show(summary)
    return 0


def _check_outputs(out: Path, truth: Path, source: Joined | None, overwrite: bool) -> None:
    if str(out) == "-":
        raise UsageError("--out takes a file, because the truth is written beside it")
    for path in (out, truth):
        if path.is_dir():
            raise UsageError(f"--out: {path} is a folder; name a file")
        for read in source.paths if source is not None else ():
            if path.exists() and path.samefile(read):
                raise UsageError(f"--out: {path} is the input; name another file")
        if path.exists() and not overwrite:
            raise UsageError(f"--out: {path} exists; name another file, or add --overwrite")


@contextmanager
def _both(out: Path, truth: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Both files for writing; they appear under their names when all is written."""
    drafts = [path.with_name(path.name + ".new") for path in (out, truth)]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(draft.open("wb")) for draft in drafts]
            yield stack.enter_context(_packed(files[0], out.suffix)), files[1]
        for draft, path in zip(drafts, (out, truth), strict=True):
            draft.replace(path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


@contextmanager
def _packed(file: IO[bytes], suffix: str) -> Iterator[IO[bytes]]:
    """``file``, packed the way its name's ending says; the same bytes every time."""
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
            yield packed  # type: ignore[misc]  # a BufferedIOBase writes bytes all the same
    elif suffix in (".zst", ".zstd"):
        writer = zstandard.ZstdCompressor().stream_writer(file, closefd=False)
        with io.BufferedWriter(writer) as buffered:  # type: ignore[type-var]
            yield buffered
    else:
        yield file


def _show(summary: dict[str, Any]) -> None:
    table = Table(box=box.SIMPLE, pad_edge=False, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    words = {
        "poison": "poison",
        "prepare": "poison, harmless phase",
        "filler": "poison, filler ratings",
        "honest": "honest",
        "honest_burst": "honest, in bursts",
        "honest_newcomer": "honest, from newcomers",
        "hijacked_honest": "honest, of hijacked sources",
        "unread": "no usable events",
    }
    table.add_row("lines", f"{summary['lines']:,}")
    for role, text in words.items():
        if role in summary["roles"]:
            table.add_row(f"  {text}", f"{summary['roles'][role]:,}")
    table.add_row("lines as they were", f"{summary['unchanged_lines']:,}")
    table.add_row("sources of poison", f"{summary['poison_sources']:,}")
    table.add_row("first poison in line", f"{summary['first_poison_line']:,}")
    shown = common.console()
    shown.print(f"{summary['attack']} with seed {summary['seed']}")
    shown.print(table)
    if summary["first_trouble"]:
        shown.print(f"not an event, kept as it is: {escape(summary['first_trouble'])}")
    shown.print(f"attacked copy: {escape(summary['out'])}")
    shown.print(f"ground truth:  {escape(summary['truth'])}")


def command(
    *,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="JSONL, CSV, TSV or Parquet files (.gz and .zst too), river:NAME for a data set "
            "inside river (river:Phishing), or - for standard input. Read in the order given, "
            "into memory.",
        ),
    ],
    attack: Annotated[
        str, typer.Option("--attack", metavar="NAME", help="One of those listed below.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="The attacked copy, as JSONL; .gz and .zst are packed."
        ),
    ],
    rate: Annotated[
        float,
        typer.Option(
            "--rate", metavar="SHARE", help="Poisoned share of the events behind the clean prefix."
        ),
    ] = 0.03,
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern", metavar="burst|spread", help="In dense runs of about 40, or one by one."
        ),
    ] = "burst",
    sources: Annotated[
        str,
        typer.Option(
            "--sources",
            metavar="WHO",
            help="Who sends the poison: a number of new accounts; ordinary (whoever sent the "
            "event); fresh (an account for each event, among honest newcomers); hijacked or "
            "hijacked:N (N accounts that were honest before).",
        ),
    ] = "5",
    clean_prefix: Annotated[
        float,
        typer.Option("--clean-prefix", metavar="SHARE", help="Share before the first poison."),
    ] = 0.3,
    snap: Annotated[
        bool,
        typer.Option(
            "--snap",
            metavar="",
            help="Changed values are moved to ones their column has shown, as a careful attacker "
            "does.",
        ),
    ] = False,
    honest_bursts: Annotated[
        int,
        typer.Option(
            "--honest-bursts",
            metavar="N",
            min=0,
            help="N honest sources send dense runs beside the attack.",
        ),
    ] = 0,
    newcomers: Annotated[
        float | None,
        typer.Option(
            "--newcomers",
            metavar="SHARE",
            help="Share of the honest events whose source sends nothing else. Else 0.05 with "
            "fresh sources, and 0 without.",
        ),
    ] = None,
    honest_sources: Annotated[
        int,
        typer.Option(
            "--honest-sources",
            metavar="N",
            min=0,
            help="Give the honest events N made-up accounts, for recordings that name none; "
            "rewrites every line.",
        ),
    ] = 0,
    trigger_features: Annotated[
        int,
        typer.Option("--trigger-features", metavar="N", help="Features that a backdoor stamps."),
    ] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bytes.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace FILE and its truth file.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="Print the summary as JSON instead of a table."),
    ] = False,
    labels_from: LabelsOption = None,
    source_from: SourceOption = None,
    id_from: IdOption = None,
    ts_from: TimeOption = None,
    subject_from: SubjectOption = None,
    features: FeaturesOption = None,
    debug: common.DebugOption = False,
) -> int:
    """Write an attacked copy of a recorded stream, to find out what the monitor would catch.

    FILE gets every line of the input in order, a share of them poisoned; lines that the attack
    leaves alone stay byte for byte as they were (tables become JSON events first). Beside it,
    FILE.truth.jsonl says for each line: line, id, poison (true or false), attack and role. Then
    `replay` FILE and compare its decisions, which are in the same order, with the truth.

    Attacks that need updates in the field gradient put some there, into honest events too, when
    the recording has none.
    """
    columns = Columns(
        labels_from, source_from, id_from, ts_from, subject_from, feature_names(features)
    )
    options = InjectOptions(
        attack=attack,
        rate=rate,
        pattern=pattern,
        sources=sources,
        clean_prefix=clean_prefix,
        snap=snap,
        seed=seed,
        honest_bursts=honest_bursts,
        newcomers=newcomers,
        trigger_features=trigger_features,
        honest_sources=honest_sources,
    )
    return inject_into(inputs, out, columns, options, overwrite=overwrite, as_json=as_json)


EPILOG = """\
**Attacks**

Labels: flip (random labels), targeted (the most frequent class arrives as the runner-up).

Backdoors (2 to 4 features, one label): backdoor (fixed values), backdoor_typical and
backdoor_atypical (values usual or rare for the label), backdoor_jitter (noisy values),
backdoor_additive and backdoor_additive_jitter (amounts added).

Right label, wrong place: clean_label (60 % of the way to another class), clean_label_collide
(like a victim of another class), frog (the way grows from 0 to 90 % over the stream).

Strong pull: gradient (confident points with the opposite label), accumulative (a harmless phase,
then a batch).

Updates: gradient_scaled, gradient_flipped, gradient_lie (just inside the honest spread),
gradient_sybils (one direction).

Added events: shilling_push_random, shilling_push_average, shilling_push_bandwagon,
shilling_nuke_random, shilling_nuke_average, shilling_nuke_bandwagon (profiles that lift or sink
subjects), replay and replay_same_id (earlier events again).

**Examples**

`poisoning-monitor inject events.jsonl.gz --attack flip --out flipped.jsonl`

`poisoning-monitor inject river:Shuttle --attack backdoor --honest-sources 200 --rate 0.01
--pattern spread --sources hijacked:10 --snap --out backdoor.jsonl.gz`

`poisoning-monitor inject ratings.csv --labels-from rating --source-from user --subject-from item
--attack shilling_push_average --sources 20 --out pushed.jsonl`
"""
