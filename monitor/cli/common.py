"""What the commands share: consoles, options, the end of a run in words and figures."""

from __future__ import annotations

import math
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from monitor.cli.report_data import ACCEPT, FLAG, INVALID, QUARANTINE, Tally
from monitor.core.errors import MonitorError, UsageError
from monitor.core.ports import CommitUnit
from monitor.core.types import Mode

PACKAGE = "poisoning-monitor"
INTERRUPTED = 130
INCIDENTS = "incidents.jsonl"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings in YAML; deploy/config.example.yaml lists all of them.",
    ),
]
PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy", metavar="FILE", help="Policy in YAML: mode, flag_at, quarantine_at, budget."
    ),
]
ModeOption = Annotated[
    Mode | None,
    typer.Option(
        "--mode",
        help="enforce holds quarantined events back; alert and shadow let everything pass.",
    ),
]
FlagAtOption = Annotated[
    float | None,
    typer.Option(
        "--flag-at", metavar="SHARE", help="Share of honest events that may be flagged, e.g. 0.01."
    ),
]
QuarantineAtOption = Annotated[
    float | None,
    typer.Option(
        "--quarantine-at",
        metavar="SHARE",
        help="Share of honest events that may be held back, e.g. 0.001.",
    ),
]
DebugOption = Annotated[
    bool, typer.Option("--debug", metavar="", help="Show the Python traceback of an error.")
]


def console(*, err: bool = False) -> Console:
    """A console on standard output or error; plain text when it is not a terminal."""
    return Console(stderr=err, highlight=False, soft_wrap=not sys.stdout.isatty())


def finite(option: str, value: float, allowed: str) -> float:
    """``value``, unless it is nan or infinite: such pass every range, and JSON has none of them.

    Raises
    ------
    UsageError
        Which says what is ``allowed``.

    Examples
    --------
    >>> finite("--rate", 0.5, "above 0")
    0.5
    """
    if not math.isfinite(value):
        raise UsageError(f"{option}: must be a number {allowed}, not {value}")
    return value


def version() -> str:
    """The installed version."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "0.0.0+source"


def versions() -> dict[str, str]:
    """Versions that may change a result, for summaries."""
    found = {PACKAGE: version(), "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in ("numpy", "river")}


@dataclass(slots=True)
class Pace:
    """Observer: how many events were committed when, in at most 600 points, and time by stage."""

    began: float = field(default_factory=time.monotonic)
    events: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    points: list[tuple[float, int]] = field(default_factory=lambda: [(0.0, 0)])

    def start(self) -> None:
        """Set the clock to zero."""
        self.began = time.monotonic()

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Count a commit."""
        self.events += sum(len(part.raw) for part in unit.parts)
        for stage, spent in seconds.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + spent
        self.points.append((self.seconds, self.events))
        if len(self.points) > 600:
            self.points = self.points[::2]

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def as_dict(self) -> dict[str, Any]:
        """For summary.json."""
        last = self.points[-1][0]
        return {
            "seconds": round(last, 3),
            "events_per_second": round(self.events / last, 1) if last > 0 else 0.0,
            "stage_seconds": {name: round(spent, 3) for name, spent in self.stages.items()},
        }


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[list[int]]:
    """Set ``stop`` at the first SIGINT or SIGTERM; a second one interrupts at once.

    Yields the list of signals received. Outside the main thread, where handlers cannot be
    installed, it does nothing.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        stop.set()
        if len(received) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file for people: indented, newline at the end."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(orjson.dumps(value, option=options))
    draft.replace(path)


def write_incidents(out: Path, incidents: Iterable[Mapping[str, Any]]) -> None:
    """Write ``incidents.jsonl``, one line an incident, in order of the first event."""
    order = sorted(incidents, key=lambda found: (found["first"]["ts"], found["id"]))
    draft = out / (INCIDENTS + ".new")
    draft.write_bytes(b"".join(orjson.dumps(found) + b"\n" for found in order))
    draft.replace(out / INCIDENTS)


def told_incidents(out: Path) -> list[dict[str, Any]]:
    """How each incident stood when ``alerts.jsonl`` told of it last."""
    latest: dict[str, dict[str, Any]] = {}
    path = out / "alerts.jsonl"
    for line in path.read_bytes().splitlines() if path.exists() else ():
        change = orjson.loads(line)
        latest[change["id"]] = {k: v for k, v in change.items() if k not in ("type", "change")}
    return [found for found in latest.values() if not found["merged_into"]]


def verdict_table(tally: Tally, title: str) -> Table:
    """Events by verdict, with what speaks loudest."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("verdict")
    table.add_column("events", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    families = {
        verdict: ", ".join(
            f"{name} {counts[verdict]:,}"
            for name, counts in sorted(tally.families.items(), key=lambda i: -i[1][verdict])
            if counts[verdict]
        )
        for verdict in (FLAG, QUARANTINE)
    }
    codes = ", ".join(f"{code} {count:,}" for code, count in tally.codes.most_common(5))
    passed = tally.warmup_passed
    warm = f"{passed:,} events unjudged while warming up" if passed else ""
    remarks = {**families, ACCEPT: warm, INVALID: codes}
    styles = {ACCEPT: "cyan", FLAG: "yellow", QUARANTINE: "red", INVALID: "magenta"}
    names = {ACCEPT: "accept", FLAG: "flag", QUARANTINE: "quarantine", INVALID: "invalid"}
    for verdict, name in names.items():
        count = tally.verdicts[verdict]
        share = f"{100 * count / max(1, tally.events):.2f} %"
        table.add_row(f"[{styles[verdict]}]{name}[/]", f"{count:,}", share, remarks[verdict])
    return table


def existing_folder_or_new(path: Path) -> Path:
    """Refuse a path that is a file, or lies below one. Raises UsageError."""
    there = next((one for one in (path, *path.parents) if one.exists()), None)
    if there is not None and not there.is_dir():
        raise UsageError(f"{there}: is a file; name a folder")
    return path


def explained(error: Exception, debug: bool) -> tuple[str, int]:
    """What to say about an error, and the exit code."""
    if isinstance(error, MonitorError):
        return str(error), error.exit_code
    message = getattr(error, "format_message", None)
    if message is not None:  # typer's own errors: a wrong option or argument
        said = str(message()).replace("Value error, ", "").rstrip(".")
        end = "" if said.endswith("?") else "."
        return f"{said}{end} See --help." if said else "", 2  # nothing said: the help was shown
    if isinstance(error, OSError):
        return f"{error.filename or ''} {error.strerror or error}", 2
    hint = "" if debug else " This is a bug; --debug shows where."
    return f"{type(error).__name__}: {error}.{hint}", 1
