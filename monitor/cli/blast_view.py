"""How the blast radius looks in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from monitor.cli.desk_view import counted, plain, table, when

ROWS = 10
BAR = 40
CLAIMED = "keys are those that the events name: every event a key has signed, and maybe others"
_LEVELS = " ▁▂▃▄▅▆▇█"


def print_blast(out: Console, found: Mapping[str, Any]) -> None:
    """All of it."""
    n, first, last = found["events"], found["first"], found["last"]
    back = f", {found['retracted']:,} of them taken back" if found["retracted"] else ""
    out.print(f"{counted(n, 'accepted event')} match{'es' if n == 1 else ''}{back}")
    _print_index(out, found["index"])
    if first is None or last is None:
        _print_checkpoints(out, found["checkpoints"], any_found=False)
        return
    for word, one in (("first", first), ("last", last)):
        at = one["accepted"]
        out.print(
            Text(f"{word} accepted {when(one['accepted_at'])} at ")
            + Text(f"{found['index']['topic']} {at['partition']}-{at['offset']}, ")
            + Text("event ")
            + plain(one["id"], 60)
            + Text(" of ")
            + plain(one["source"], 60)
        )
    _print_histogram(out, found["histogram"])
    for name in ("label", "subject", "source", "key"):
        spread = found[f"{name}s"]
        if spread["distinct"]:
            made = table(
                f"by {name}, {spread['distinct']:,} in all", name, "events", right=("events",)
            )
            for key, events in list(spread["top"].items())[:ROWS]:
                made.add_row(plain(key, 60), f"{events:,}")
            out.print(made)
    if found["keys"]["distinct"]:
        proof = found["index"]["keys"]
        out.print("keys are those that were verified" if proof == "verified" else CLAIMED)
    if found["matched_by"]:
        told = ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in found["matched_by"].items())
        out.print(f"matched by: {told}")
    _print_items(out, found["items"])
    _print_checkpoints(out, found["checkpoints"], any_found=True)


def _print_index(out: Console, index: Mapping[str, Any]) -> None:
    missing = {part: at for part, at in index["complete_from"].items() if at}
    if missing:
        told = ", ".join(f"{part}-{at}" for part, at in missing.items())
        out.print(f"the index is complete from {told} on; what was before is not known any more")
    if index["behind"]:
        out.print(f"the index is about {counted(index['behind'])} behind")


def _print_histogram(out: Console, shape: Mapping[str, Any]) -> None:
    counts = shape["counts"]
    if not counts:
        return
    top = max(counts)
    bars = "".join(_LEVELS[-(-8 * count // top)] for count in counts)
    start, seconds = shape["start"], shape["seconds"]
    out.print(f"{when(start)} |{bars}| {when(start + seconds * len(counts))}", markup=False)
    out.print(f"a column is {seconds:.4g} s, the highest has {counted(top)}")


def _print_items(out: Console, items: Sequence[Mapping[str, Any]]) -> None:
    if not items:
        return
    made = table("the first of them", "key", "when", "id", "source", "subject", "label")
    for one in items:
        at = one["accepted"]
        made.add_row(
            f"{at['partition']}-{at['offset']}",
            when(one["ts"]),
            plain(one["id"], 40),
            plain(one["source"], 40),
            plain(one["subject"], 40),
            plain(one["label"], 32),
        )
    out.print(made)


def _print_checkpoints(out: Console, found: Mapping[str, Any], *, any_found: bool) -> None:
    if not found["known"]:
        out.print("no checkpoint is known; tell of them with `checkpoint add`", markup=False)
        return
    last = found["last_clean"]
    if last is None:
        out.print("no checkpoint is clean: all that are known have learned some")
    else:
        sure = "" if found["certain"] else " (as far as the index goes back)"
        out.print(Text("last clean checkpoint: ") + plain(last["name"]) + Text(sure))
    for name, words in (("tainted", "tainted"), ("unclear", "unclear how far they have read")):
        if found[name] and any_found:
            names = [plain(one["name"], 60).plain for one in found[name]]
            more = f" and {len(names) - ROWS} more" if len(names) > ROWS else ""
            out.print(Text(f"{words}: {', '.join(names[:ROWS])}{more}"))


def checkpoint_table(checkpoints: Sequence[Mapping[str, Any]]) -> Any:
    """Stored models, a line each."""
    made = table(counted(len(checkpoints), "checkpoint"), "name", "when", "offsets")
    for one in checkpoints:
        places = ", ".join(f"{part}-{at}" for part, at in one["offsets"].items())
        made.add_row(plain(one["name"], 60), when(one["ts"]), plain(places))
    return made
