"""``demo``: the whole service on a real stream with attacks in it; nothing to set up."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monitor.cli import common
from monitor.config.settings import Settings, load_settings, with_policy
from monitor.core.errors import UsageError

DEFAULT_OUT = Path("demo-data")
DEFAULT_ATTACKS = ("flip", "backdoor")
DEFAULT_SECONDS = 60.0
BATCH_EVENTS = 128
PLAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo shows."""

    out: Path = DEFAULT_OUT
    events: int | None = None
    duration_seconds: float | None = None
    events_per_second: float | None = None
    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    share: float = 0.05
    seed: int = 0
    live: bool = True


def demo(settings: Settings, options: DemoOptions) -> int:
    """Run the demo; the exit code.

    Raises
    ------
    UsageError
        For an option that cannot be used, or a port or folder that is taken.
    """
    # heavy imports
    from monitor.cli import demo_stream, demo_view, wiring, wiring_desk  # noqa: PLC0415

    console = common.console()
    _check_folder(options.out)
    http = wiring.make_server(settings, option="--port")
    console.print("preparing the stream …")
    honest = demo_stream.shuttle(options.events, options.seed)
    stream = demo_stream.attacked(honest, options.attacks, share=options.share, seed=options.seed)
    paced = demo_stream.PacedLines(stream, _pace(options, len(stream.lines)))
    transport = wiring.replay_transport(paced, options.out, settings, overwrite=True)
    status, collected, pace = wiring.make_status(), demo_view.Collected(), common.Pace()
    metrics = wiring.make_metrics(settings, status, live=False)
    gate = wiring.make_gate(settings, local=True, meter=metrics.meter)
    manned = wiring_desk.make_manned(
        settings, gate, transport, status=status, metrics=metrics, observers=[collected, pace]
    )
    stop = threading.Event()
    try:
        given = (settings, manned.service, status, metrics, manned.desk)
        http.start(wiring.make_app(*given, incidents=manned.incidents, chains=manned.chains))
        console.print(f"serving the console on {http.url} and {http.url}/metrics", markup=False)
        view = demo_view.DemoView(stream, status, collected, http.url)
        with (
            common.stop_on_signals(stop) as signals,
            _Deadline(stop, options.duration_seconds),
            _shown(view, status, console, options.live),
        ):
            pace.start()
            manned.service.run(stop)
    finally:
        manned.close()
        http.stop()
    common.write_incidents(options.out, manned.incidents.snapshot().incidents)
    _finish(stream, settings, options, pace, console)
    return common.INTERRUPTED if signal.SIGINT in signals else 0


def _pace(options: DemoOptions, n: int) -> float:
    """Events a second, so that the whole story fits into the time there is."""
    if options.events_per_second is not None:
        return options.events_per_second
    return n / (0.95 * (options.duration_seconds or DEFAULT_SECONDS))


def _check_folder(out: Path) -> None:
    from monitor.cli import demo_stream, wiring  # noqa: PLC0415

    common.existing_folder_or_new(out)
    before = wiring.earlier_run(out)
    ours = before is None or before.source == demo_stream.NAME  # a replay's is not to be replaced
    if out.is_dir() and any(out.iterdir()) and not (ours and (out / ".monitor").is_dir()):
        raise UsageError(f"{out}: holds files that are not the demo's; choose another --out")


class _Deadline:
    """Sets ``stop`` after so many seconds, if any."""

    def __init__(self, stop: threading.Event, seconds: float | None) -> None:
        self._timer = None if seconds is None else threading.Timer(seconds, stop.set)

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _shown(view: Any, status: Any, console: Console, live: bool) -> AbstractContextManager[Any]:
    from monitor.cli.demo_view import PlainView  # noqa: PLC0415

    if live and console.is_terminal:
        shown: AbstractContextManager[Any] = view.live(console)
        return shown
    return PlainView(view, status, console, PLAIN_SECONDS)


def _finish(
    stream: Any, settings: Settings, options: DemoOptions, pace: common.Pace, console: Console
) -> None:
    from monitor.cli import demo_stream, wiring  # noqa: PLC0415
    from monitor.cli.report import write_report  # noqa: PLC0415
    from monitor.cli.report_data import read_decisions, tally  # noqa: PLC0415

    records = list(read_decisions(options.out / "decisions.jsonl"))
    counted = tally(records)
    found = demo_stream.outcome(stream, records)
    summary: dict[str, Any] = {
        "inputs": [f"river:Shuttle with attacks: {', '.join(stream.attacks)}"],
        "ground_truth": found,
        **counted.as_dict(),
        **pace.as_dict(),
        "policy": settings.policy.model_dump(mode="json"),
        "settings": wiring.deciding(settings),
        "versions": common.versions(),
    }
    common.write_json(options.out / "summary.json", summary)
    tiles = [
        (
            f"{attack['attack']}: caught",
            _percent(attack["quarantined_share"]),
            f"{attack['quarantined']:,} of {attack['events']:,} poisoned events held back",
            "#2f9e77",
        )
        for attack in found["attacks"]
    ]
    honest = found["honest"]
    remark = f"{honest['quarantined']:,} of {honest['events']:,} honest events"
    tiles.append(("wrongly held back", _percent(honest["quarantined_share"]), remark, "#888888"))
    write_report(options.out / "report.html", counted, summary, speed=pace.points, tiles=tiles)
    _print_outcome(found, console)
    console.print(f"see {escape(str(options.out / 'report.html'))}")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _print_outcome(found: dict[str, Any], console: Console) -> None:
    table = Table(
        title="What was injected, what was caught, what was wrongly held back",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    for name in ("", "events", "held back", "flagged", "let through", "held back"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    rows = [(f"attack {a['attack']}", a, "green") for a in found["attacks"]]
    for name, counts, style in [*rows, ("honest events", found["honest"], "yellow")]:
        table.add_row(
            name,
            f"{counts['events']:,}",
            f"{counts['quarantined']:,}",
            f"{counts['flagged']:,}",
            f"{counts['accepted']:,}",
            f"[{style}]{_percent(counts['quarantined_share'])}[/]",
        )
    console.print(table)
    console.print("What is held back of an attack is caught; of honest events, a false alarm.")


def command(
    *,
    events: Annotated[
        int | None,
        typer.Option("--events", metavar="N", min=1, help="Length of the stream; else all 49,097."),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            metavar="SECONDS",
            min=1.0,
            help="Fit the stream into this time, and stop then. Else about a minute.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="PORT", help="Of the HTTP interface, else 8765; 0 for any."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", min=0.0, help="Events a second; 0 is full speed."),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            metavar="NAME",
            help="May be given several times: flip, targeted, clean_label, clean_label_collide, "
            "gradient, frog, accumulative, backdoor, backdoor_typical, backdoor_atypical, "
            "backdoor_jitter, backdoor_additive, backdoor_additive_jitter. "
            "Default: flip, then backdoor.",
        ),
    ] = None,
    share: Annotated[
        float,
        typer.Option(
            "--share",
            metavar="SHARE",
            min=0.001,
            max=0.5,
            help="Poisoned share of events in an attack.",
        ),
    ] = 0.05,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same stream.")] = 0,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the results; replaced.")
    ] = DEFAULT_OUT,
    mode: common.ModeOption = None,
    no_live: Annotated[
        bool,
        typer.Option("--no-live", metavar="", help="Plain progress lines, no full-screen view."),
    ] = False,
    debug: common.DebugOption = False,
) -> int:
    """Watch the monitor at work on a real stream with attacks in it. Needs no broker, no set-up.

    49,097 sensor readings of a space shuttle come from 200 made-up honest sources; after a calm
    beginning, colluding sources send poison. You see verdicts with their reasons as they are made,
    and at the end what was caught and what was wrongly held back. Meanwhile the whole HTTP
    interface is there to be tried.
    """
    options = {
        "transport": "local",
        "batch.max_events": BATCH_EVENTS,
        "http.port": port,
        "local.fsync": "never",
        "local.out_dir": str(out),
    }
    settings = with_policy(load_settings(options=options), None, {"mode": mode})
    attacks = tuple(attack) if attack else DEFAULT_ATTACKS
    return demo(
        settings,
        DemoOptions(out, events, duration, rate, attacks, share, seed, live=not no_live),
    )


EPILOG = """\
**Examples**

`poisoning-monitor demo`

`poisoning-monitor demo --duration 30 --attack targeted --attack clean_label`

`poisoning-monitor demo --events 20000 --rate 0 --no-live --port 0`
"""
