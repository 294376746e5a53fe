"""Incidents of several partitions as one list: pieces of one campaign become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from monitor.core.incident import Account
from monitor.decide.incident_timeline import Timeline

NEAR_SECONDS = 3600.0
TOP = 10


def merge(incidents: Iterable[Account]) -> list[dict[str, Any]]:
    """Incidents with the same kind and key whose times overlap, or nearly so, as one.

    Parameters
    ----------
    incidents
        Accounts from any number of partitions, each with ``partition``.

    Returns
    -------
    list
        One account a group, in order of the first event. It has the earliest one's identifier,
        the largest one's words and what is common, all evidence as far as it is shown, and its
        parts' identifiers and partitions in ``parts``.
    """
    groups: list[list[Account]] = []
    latest: dict[tuple[str, str], list[Account]] = {}
    for found in sorted(incidents, key=_order):
        name = (str(found["kind"]), str(found["key"]))
        group = latest.get(name)
        if group is not None and _overlaps(group, found):
            group.append(found)
        else:
            latest[name] = [found]
            groups.append(latest[name])
    return [_united(group) for group in groups]


def _order(found: Account) -> tuple[float, str, int]:
    return float(found["first"]["ts"]), str(found["id"]), int(found.get("partition", 0))


def _overlaps(group: Sequence[Account], found: Account) -> bool:
    """Of another partition, or the same incident again, and begun before the group ended."""
    mine = {g.get("partition", 0) for g in group if g["id"] != found["id"]}
    end = max(float(g["last"]["ts"]) for g in group)
    return found.get("partition", 0) not in mine and found["first"]["ts"] <= end + NEAR_SECONDS


def _united(group: Sequence[Account]) -> dict[str, Any]:
    parts = [
        {"id": g["id"], "partition": g.get("partition", 0), "events": g["events"]} for g in group
    ]
    biggest = max(group, key=lambda g: (g["events"], g["id"]))
    out: dict[str, Any] = {**biggest, "id": group[0]["id"], "parts": parts}
    out.pop("partition", None)
    if len(group) == 1:
        return out
    for name in ("events", "quarantined", "flagged", "weight", "influence"):
        total = sum(g[name] for g in group)
        out[name] = total if isinstance(total, int) else round(total, 3)
    out["risk"] = max(g["risk"] for g in group)
    out["state"] = "open" if any(g["state"] == "open" for g in group) else "closed"
    out["opened"] = min(g["opened"] for g in group)
    out["first"] = min((g["first"] for g in group), key=_time)
    out["last"] = max((g["last"] for g in group), key=_time)
    top = _summed((g["sources"]["top"] for g in group), "source")
    # The parts' sources may be the same or others: at least the most of one, at most all.
    most = max(g["sources"]["estimate"] for g in group)
    out["sources"] = {"estimate": max(most, len(top)), "top": top[:TOP]}
    out["labels"] = _summed((g["labels"] for g in group), "label")[:TOP]
    out["timeline"] = reduce(
        Timeline.joined, (Timeline.read(g["timeline"]) for g in group), Timeline()
    ).told()
    families: dict[str, int] = {}
    for g in group:
        for name, count in g["families"].items():
            families[name] = families.get(name, 0) + count
    out["families"] = families
    return out


def _time(place: Mapping[str, Any]) -> float:
    return float(place["ts"])


def _summed(lists: Iterable[Sequence[Mapping[str, Any]]], name: str) -> list[dict[str, Any]]:
    total: dict[str, int] = {}
    for rows in lists:
        for row in rows:
            total[row[name]] = total.get(row[name], 0) + int(row["events"])
    order = sorted(total, key=lambda text: (-total[text], text))
    return [{name: text, "events": total[text]} for text in order]
