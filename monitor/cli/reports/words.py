"""What page and text say in the same words. Nothing here is escaped."""

from __future__ import annotations

from collections.abc import Iterator

from monitor.cli.desk_view import counted
from monitor.cli.reports.facts import Facts, Record, clock

_LEFT_OUT = frozenset({"first_keys", "proposal"})


def what_of(one: Record) -> str:
    """Kind, family and state of an incident."""
    kind = str(one["kind"]).replace("_", " ")
    family = "" if one["family"] == one["kind"] else f" {one['family']}"
    return f"{kind}{family}, {one['state']}"


def rows_of(one: Record) -> Iterator[tuple[str, str]]:
    """Title and text of what is known of an incident; the text is not escaped."""
    for name in ("first", "last"):
        told = (clock(one[name]["ts"]), str(one[name]["id"]))
        yield f"{name} event", ", ".join(part for part in told if part)
    yield "stood out", clock(one["opened"])
    common = one["common"]
    if common.get("pattern"):
        yield (
            "pattern",
            ", ".join(
                part["feature"]
                if part["value"] is None
                else f"{part['feature']} ≈ {part['value']:.4g}"
                for part in common["pattern"]
            ),
        )
    if common.get("flips"):
        yield (
            "flips",
            ", ".join(
                f"{flip['from']} → {flip['to']} ({flip['events']:,})" for flip in common["flips"]
            ),
        )
    for name, rows, key in (
        ("subjects", common.get("subjects", ()), "subject"),
        ("labels", one["labels"], "label"),
        ("sources", one["sources"]["top"], "source"),
    ):
        if rows:
            yield name, ", ".join(f"{row[key]} ({row['events']:,})" for row in rows)
    if one["families"]:
        ranked = sorted(one["families"].items(), key=lambda item: (-item[1], item[0]))
        yield "channels that spoke", ", ".join(f"{name} ({n:,})" for name, n in ranked)
    yield "highest risk", f"{one['risk']:.2f}"


def passed_text(facts: Facts) -> str:
    """What reached the learner, in words."""
    passed = facts.passed
    assert passed is not None
    whole, flagged = passed.before + passed.after, passed.flagged
    others = (
        f" Of the incident's events {passed.others:,} of other sources reached the learner, too."
        if passed.others
        else ""
    )
    if not whole and passed.judged_by == "sources":
        return f"None of what its hostile sources sent reached the learner.{others}"
    when = "nothing of it was quarantined" if passed.noticed is None else (
        f"{passed.before:,} of them before the first was quarantined, at {clock(passed.noticed)}"
    )  # fmt: skip
    what = (
        "of all that the incident's hostile sources sent"
        if passed.judged_by == "sources"
        else "known to be the incident's"
    )
    more = (
        others
        if passed.judged_by == "sources"
        else " Nobody stands out as its source, so more of its kind may have passed unseen."
    )
    some = f"{counted(whole)} {what} reached the learner, {when}"
    return f"{some}; {flagged:,} {'was' if flagged == 1 else 'were'} flagged.{more}"


def taught(blast: Record, flagged: int) -> Iterator[str]:
    """What accepted events like the incident's have taught the model, a sentence each.

    ``flagged`` of the incident's own events were let through.
    """
    many, back, first = blast["events"], blast["retracted"], blast["first"]
    if not many:
        yield "No accepted event is from the incident's sources or has its pattern."
        if flagged:
            was = "was" if flagged == 1 else "were"
            yield (
                f"But {counted(flagged, 'event')} of the incident {was} flagged and let through, "
                "which the learner has got: look at them by source."
            )
        return
    behind = blast["index"]["behind"]
    yield (
        f"{counted(many, 'accepted event', 'is')} like the incident's, by source and label or "
        f"by pattern, within its time: the first is {first['id']} of {first['source']}, "
        f"{clock(first['ts'])}. {back:,} of them {'was' if back == 1 else 'were'} taken back."
        + (f" About {counted(behind, 'accepted event', 'is')} not looked at yet." if behind else "")
    )
    stored = blast["checkpoints"]
    if not stored["known"]:
        yield "No checkpoint of the model is known; tell of them with `checkpoint add`."
    elif stored["last_clean"] is None:
        yield "No checkpoint that is known is clean: all have learned some of it."
    else:
        sure = "" if stored["certain"] else ", as far as the index goes back"
        names = ", ".join(one["name"] for one in stored["tainted"]) or "none"
        yield (
            f"The last clean checkpoint is {stored['last_clean']['name']}{sure}; those that have "
            f"learned some of it: {names}."
        )


def changed(change: Record) -> list[str]:
    """What a version of the policy changed, a sentence each; not escaped."""
    return [
        f"{one['path']}: {one['before']} → {one['after']}" for one in change["differences"]
    ] or [str(change["kind"])]


def details(action: Record) -> str:
    """The details of an entry of the audit trail."""
    told = []
    for name, value in (action.get("details") or {}).items():
        if value in (None, "", [], {}) or name in _LEFT_OUT:
            continue
        pairs = value.items() if isinstance(value, dict) else ()
        said = ", ".join(f"{key}: {one}" for key, one in pairs) or value
        told.append(f"{name.replace('_', ' ')} {said}")
    return "; ".join(told)
