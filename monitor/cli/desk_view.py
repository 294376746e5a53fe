"""How policies, held events and outcomes look in a terminal.

Sources, labels and texts come from strangers: they are shown without markup and without anything
that could steer a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.config.sources import flatten

WIDTH = 120
WHOLE = frozenset({"key", "when", "held at", "version", "risk", "proposal", "status"})
"""Columns that are not broken into lines."""


def plain(value: Any, width: int = WIDTH) -> Text:
    """A value as text without markup and control characters.

    Examples
    --------
    >>> plain("[red]a" + chr(27) + "[2J").plain
    '[red]a?[2J'
    """
    if value is None:
        return Text("–", style="dim")
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = "".join(c if c.isprintable() else "?" for c in text[: width + 1])
    return Text(text if len(text) <= width else text[: width - 1] + "…")


def when(seconds: float | None) -> str:
    """A time in UTC, as options take it; one that no calendar has stands there as seconds.

    Examples
    --------
    >>> when(0.0), when(1e300)
    ('1970-01-01 00:00:00Z', '1e+300 s')
    """
    if seconds is None:
        return "–"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):  # producers may claim any time
        return f"{seconds:.6g} s"


def share(value: float) -> str:
    """A share as a percentage with as many digits as it needs.

    Examples
    --------
    >>> share(0.0123), share(0.00004)
    ('1.23 %', '0.004 %')
    """
    return f"{100 * value:.3g} %"


def table(title: str, *columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table; columns named in ``right`` are aligned there."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in columns:
        made.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold",
            no_wrap=name in WHOLE,
        )
    return made


def counted(number: int, thing: str = "event", verb: str = "") -> str:
    """A number of things, and of ``is``, ``was`` or ``has`` the form that goes with it.

    Examples
    --------
    >>> counted(1), counted(2000), counted(1, "key", "was"), counted(0, "key", "was")
    ('1 event', '2,000 events', '1 key was', '0 keys were')
    """
    many = {"is": "are", "was": "were", "has": "have"}
    said = f"{number:,} {thing}{'' if number == 1 else 's'}"
    return f"{said} {verb if number == 1 else many[verb]}" if verb else said


def print_json(value: Any) -> None:
    """For programs, on standard output."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def heading(change: Mapping[str, Any]) -> Text:
    """One line: which version, of whom, when and why."""
    text = Text(f"version {change['version']}", style="bold")
    text.append(f"  {change['kind']} by ", style="default").append(plain(change["who"]))
    text.append(f"  {when(change['when'])}  ", style="dim").append(plain(change["why"]))
    if change.get("approved_by"):
        text.append("  approved by ").append(plain(change["approved_by"]))
    return text


def policy_table(policy: Mapping[str, Any]) -> Table:
    """A document by dotted key."""
    made = table("", "key", "value")
    for key, value in flatten(policy):
        made.add_row(plain(key), plain(value))
    return made


def diff_table(differences: Sequence[Mapping[str, Any]], title: str) -> Table:
    """What differs."""
    made = table(title, "key", "before", "after")
    for one in differences:
        made.add_row(plain(one["path"]), plain(one["before"]), plain(one["after"]))
    return made


def history_table(changes: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Versions, or proposals that wait."""
    made = table(title, "version", "when", "who", "kind", "why", "proposal", right=("version",))
    for one in changes:
        made.add_row(
            str(one["version"]),
            when(one["when"]),
            plain(one["who"]),
            plain(one["kind"]),
            plain(one["why"]),
            plain(one["proposal"]),
        )
    return made


def print_whatif(out: Console, result: Mapping[str, Any]) -> None:
    """What another policy would have made of the latest events."""
    events = max(1, result["events"])
    made = table(
        f"the latest {counted(result['events'])}", "verdict", "before", "after", "share after",
        right=("before", "after", "share after"),
    )  # fmt: skip
    for word in ("accept", "flag", "quarantine"):
        before, after = (result[side].get(word, 0) for side in ("before", "after"))
        made.add_row(word, f"{before:,}", f"{after:,}", share(after / events))
    out.print(made)
    for name in ("family", "label", "source"):
        rows = result[f"by_{name}"]
        if not rows:
            continue
        part = table(f"held by {name}", name, "before", "after", right=("before", "after"))
        for key, (before, after) in sorted(rows.items(), key=lambda row: -max(row[1]))[:10]:
            part.add_row(plain(key, 60), f"{before:,}", f"{after:,}")
        out.print(part)
    promised, observed = (result[name].get("quarantine") for name in ("promised", "observed"))
    if promised is not None and observed is not None:
        out.print(
            f"held back: {share(promised)} of honest events promised, {share(observed)} of all"
        )
    out.print(f"{counted(result['n_flips'], 'verdict')} would change")


def held_table(items: Sequence[Mapping[str, Any]], total: int) -> Table:
    """Held events."""
    made = table(
        f"{len(items):,} of {counted(total, 'held event')}",
        "key", "held at", "source", "label", "risk", "families", "status", right=("risk",),
    )  # fmt: skip
    for one in items:
        made.add_row(
            plain(one["key"]),
            when(one["held_at"]),
            plain(one["source"], 48),
            plain(one["label"], 32),
            f"{one['risk']:.2f}",
            plain(", ".join(one["families"])),
            plain(one["status"]),
        )
    return made


def print_event(out: Console, held: Mapping[str, Any]) -> None:
    """One held event: what it said, why it was held, what became of it."""
    made = table(f"held event {held['key']}", "", "")
    made.show_header = False
    for name in (
        "event_id", "source", "subject", "label", "risk", "families", "incident",
        "policy_version", "status",
    ):  # fmt: skip
        made.add_row(name.replace("_", " "), plain(held[name]))
    made.add_row("held at", when(held["held_at"]))
    if held["reviewed_by"]:
        made.add_row("reviewed by", plain(held["reviewed_by"]))
        made.add_row("reviewed at", when(held["reviewed_at"]))
        made.add_row("because", plain(held["review_reason"]))
    out.print(made)
    reasons = table("why", "detector", "p-value", "in words", right=("p-value",))
    for reason in held["decision"].get("reasons", ()):
        p_value = reason.get("p_value")
        reasons.add_row(
            plain(reason.get("detector")),
            "–" if p_value is None else f"{p_value:.2g}",
            plain(reason.get("text"), 600),
        )
    out.print(reasons)
    value = held["value"]
    shown = (
        f"{len(held['value_base64']) * 3 // 4} bytes that are no text" if value is None else value
    )
    out.print(plain(shown, 2000))


def print_outcome(out: Console, outcome: Mapping[str, Any]) -> None:
    """What a review did, or would do."""
    done, dry = len(outcome["done"]), outcome["dry_run"]
    verb = outcome["verb"]
    words = f"would {verb}" if dry else f"{verb}{'d' if verb.endswith('e') else 'ed'}"
    before = len(outcome["already"])
    out.print(f"{words} {counted(done)}" + (f"; {before:,} had been before" if before else ""))
    for name in ("source", "label"):
        rows = sorted(outcome[f"by_{name}"].items(), key=lambda row: -row[1])[:10]
        if rows:
            part = table(f"by {name}", name, "events", right=("events",))
            for key, events in rows:
                part.add_row(plain(key, 60), f"{events:,}")
            out.print(part)
    refused = outcome["refused"]
    if refused:
        part = table(f"{len(refused):,} refused", "key", "because")
        for key, why in list(refused.items())[:20]:
            part.add_row(plain(key), plain(why))
        out.print(part)
