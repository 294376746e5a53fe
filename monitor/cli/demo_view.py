"""The demo's live terminal view, and its plain form where there is no terminal."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
from rich.console import Console, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from monitor.cli.demo_stream import DemoStream
from monitor.cli.report_plots import printable
from monitor.core.ports import CommitUnit
from monitor.core.types import Action, Verdict
from monitor.runtime.status import Status

BINS = 10
BAR = "█"
LATEST = 200
NARROW = 110
STYLES = {"accept": "cyan", "flag": "yellow", "quarantine": "red", "invalid": "magenta"}


class Collected:
    """Observer: the distribution of the risk, and the sources most held back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.risk = np.zeros(BINS, dtype=np.int64)
        self.held: Counter[str] = Counter()
        self.events = 0

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Count a micro-batch."""
        with self.lock:
            for part in unit.parts:
                decisions = part.decisions
                self.events += len(decisions)
                bins = np.minimum(decisions.risk * 2, BINS - 1).astype(np.int64)
                self.risk += np.bincount(bins, minlength=BINS)
                for row in decisions.rows(Action.HOLD).tolist():
                    source = orjson.loads(decisions.records[row]).get("source")
                    self.held[str(source)] += 1
            if len(self.held) > 10_000:
                self.held = Counter(dict(self.held.most_common(1000)))


class DemoView:
    """Draws what the running demo is doing."""

    def __init__(self, stream: DemoStream, status: Status, collected: Collected, url: str) -> None:
        self._stream = stream
        self._status = status
        self._collected = collected
        self._url = url
        self._narrow = False

    def live(self, console: Console) -> Live:
        """A full-screen display that redraws itself four times a second."""
        self._narrow = console.width < NARROW
        return Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=4,
            screen=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def render(self) -> RenderableType:
        """The whole screen."""
        snapshot = self._status.snapshot()
        layout = Layout()
        layout.split_column(
            Layout(self._head(snapshot), size=5),
            Layout(name="middle", size=BINS + 3),
            Layout(self._latest(Verdict.QUARANTINE, "latest held back, one a source"), ratio=2),
            Layout(self._latest(Verdict.FLAG, "latest flagged, one a source")),
        )
        layout["middle"].split_row(
            Layout(self._verdicts(snapshot), size=32),
            Layout(self._risk()),
            Layout(self._sources(), size=22 if self._narrow else 34),
        )
        return layout

    def phase(self, events: int) -> str:
        """What is going on at this point of the stream."""
        for name, (first, last) in zip(self._stream.attacks, self._stream.windows, strict=True):
            if first <= events < last:
                return f"attack: {name}"
        return "honest traffic only"

    def _head(self, snapshot: Mapping[str, Any]) -> RenderableType:
        events, total = snapshot["events"], len(self._stream.lines)
        phase = self.phase(events)
        line = Text.assemble(
            (f"{events:,}", "bold"),
            f" of {total:,} events · {snapshot['rates']['10s']:,.0f} events/s · ",
            (phase, "bold red" if phase.startswith("attack") else "bold green"),
        )
        address = Text.assemble(
            "look around: ", (f"{self._url}/v1/status", "blue"), "  /metrics  /v1/events/flagged"
        )
        rows = Table.grid(expand=True)
        for row in (line, ProgressBar(total=total, completed=events), address):
            rows.add_row(row)
        return Panel(rows, title="poisoning monitor · demo · Ctrl-C ends it")

    def _verdicts(self, snapshot: Mapping[str, Any]) -> RenderableType:
        table = Table.grid(padding=(0, 1), expand=True)
        for word, count in snapshot["verdicts"].items():
            share = f"{100 * count / max(1, snapshot['events']):.2f} %"
            table.add_row(Text(word, STYLES[word]), Text(f"{count:,}", justify="right"), share)
        table.add_row("", "", "")
        for family, count in sorted(snapshot["families"].items(), key=lambda i: -i[1])[:5]:
            table.add_row(family, Text(f"{count:,}", justify="right"), "")
        return Panel(table, title="verdicts, families")

    def _risk(self) -> RenderableType:
        with self._collected.lock:
            counts = self._collected.risk.tolist()
        bar = 10 if self._narrow else 30
        heights = np.log10(1 + np.array(counts))
        widths = (heights / max(1.0, heights.max()) * bar).round().astype(int).tolist()
        table = Table.grid(padding=(0, 1))
        for bin_, (count, width) in enumerate(zip(counts, widths, strict=True)):
            low = bin_ / 2
            style = "red" if low >= 3 else "yellow" if low >= 2 else "cyan"
            name = f"{low:.1f}" + ("+" if bin_ == BINS - 1 else "")
            table.add_row(name, Text(BAR * width, style), f"{count:,}")
        meaning = "" if self._narrow else " (2: once in 100 ordinary events, 3: once in 1,000)"
        return Panel(table, title=f"risk{meaning}")

    def _sources(self) -> RenderableType:
        with self._collected.lock:
            top = self._collected.held.most_common(BINS)
        table = Table.grid(padding=(0, 1), expand=True)
        for source, count in top:
            table.add_row(Text(printable(source, 24)), Text(f"{count:,}", justify="right"))
        return Panel(table, title="most held back")

    def _latest(self, verdict: Verdict, title: str) -> RenderableType:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True, width=5, justify="right")
        table.add_column(no_wrap=True, width=16, overflow="ellipsis")
        table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
        seen: set[str] = set()
        for record in self._status.flagged(LATEST, verdict):
            source = str(record.get("source"))
            if source in seen:
                continue
            seen.add(source)
            reasons = record.get("reasons") or [{}]
            table.add_row(
                Text(f"{record['risk']:.1f}", STYLES[verdict.word]),
                Text(printable(source, 24)),
                Text(printable(reasons[0].get("text", ""), 300)),
            )
        return Panel(table, title=title)


class PlainView(threading.Thread):
    """A line every few seconds, for logs and pipes."""

    def __init__(self, view: DemoView, status: Status, console: Console, seconds: float) -> None:
        super().__init__(name="view", daemon=True)
        self._view = view
        self._status = status
        self._console = console
        self._seconds = seconds
        self._ended = threading.Event()

    def run(self) -> None:
        """Print until told to stop."""
        while not self._ended.wait(self._seconds):
            with suppress(BrokenPipeError):
                self._console.print(self.line(), markup=False)

    def line(self) -> str:
        """The state of things in one line."""
        snapshot = self._status.snapshot()
        verdicts = ", ".join(f"{word} {n:,}" for word, n in snapshot["verdicts"].items() if n)
        events = snapshot["events"]
        return f"{events:,} events: {verdicts or 'none yet'} ({self._view.phase(events)})"

    def __enter__(self) -> PlainView:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
