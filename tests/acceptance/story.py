"""From an attack to what is done about it, by the program's own commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.streams import load
from monitor.cli.app import execute
from monitor.runtime.inject import inject

Asked = Callable[..., Any]


@dataclass(frozen=True)
class Attacked:
    """A real stream with a backdoor by five accounts of its own in it.

    Attributes
    ----------
    lines
        Its events.
    poison, ring
        The ids of the poison, and who sends it.
    """

    lines: list[bytes]
    poison: frozenset[str]
    ring: frozenset[str]

    @classmethod
    def of(cls, name: str, events: int, prefix: float) -> Attacked:
        """The first ``events`` of a stream; nothing is poisoned before the share ``prefix``."""
        found = inject(
            load(name).take(np.arange(events)), "backdoor", rate=0.05, pattern="burst",
            colluders=5, clean_prefix=prefix, seed=1,
        )  # fmt: skip
        lines = [bytes(line) for line in found.stream.lines()]
        bad = zip(lines, found.poison.tolist(), strict=True)
        events_of_ring = [json.loads(line) for line, poison in bad if poison]
        return cls(
            lines,
            frozenset(event["id"] for event in events_of_ring),
            frozenset(event["source"] for event in events_of_ring),
        )


def asking(capsys: Any, more: Sequence[str]) -> Asked:
    """A command with ``--json``, and what it says."""

    def ask(*arguments: str) -> Any:
        capsys.readouterr()
        assert execute([*arguments, *more, "--json"]) == 0, capsys.readouterr()
        return json.loads(capsys.readouterr().out)

    return ask


def named(attacked: Attacked, incidents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The incident that is the attack; that there is one, and that it says who did it."""
    (found,) = [one for one in incidents if one["events"] >= 0.5 * len(attacked.poison)]
    assert (found["kind"], found["family"]) == ("campaign", "backdoor")
    most = [one["source"] for one in found["sources"]["top"]]
    assert attacked.ring <= set(most)
    assert found["common"]["pattern"]
    assert found["text"]
    return found


def taught(attacked: Attacked, blast: dict[str, Any]) -> None:
    """All that the model learned of it is found, also what passed before it was noticed."""
    sources = blast["sources"]["top"]
    of_ring = sum(sources.get(name, 0) for name in attacked.ring)
    assert of_ring >= 0.98 * len(attacked.poison)
    assert blast["events"] <= 2 * len(attacked.poison)


def written(page: Path, incident: dict[str, Any]) -> None:
    """A report that needs no network and names what it is about."""
    html = page.read_text("utf-8")
    assert incident["id"] in html and "backdoor" in html
    assert "<script src" not in html and "<link" not in html
