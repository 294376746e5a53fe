"""The life of an event in words: where it came in, what judged it, and what people did. Pure.

What is read here is what ``GET /v1/lineage/{id}`` gives (:mod:`monitor.state.audit_lineage`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from monitor.admin.chain_routes import MAX_ID
from monitor.console.evidence import number
from monitor.state.audit_deeds import MADE, done_with, said_in

Life = Mapping[str, Any]
DEEDS = {"released": "Released to the learner", "confirmed": "Confirmed as poison"}
VERDICTS = {
    "accept": "accepted",
    "flag": "flagged",
    "quarantine": "quarantined",
    "invalid": "found invalid",
}
ACTIONS = {
    "pass": "passed on to the learner",
    "hold": "held back from the learner",
    "reject": "sent to the dead letters",
}


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that a person did with an event; ``when`` in Unix seconds, None if not known.

    ``proof`` names the audit record that says so too; empty where none is at hand.
    """

    when: float | None
    who: str
    what: str
    why: str
    proof: str = ""


def deeds(life: Life) -> list[Deed]:
    """What people did with it, in order of time; a review with the proof that it was done."""
    found = []
    for done in done_with(life):
        what = DEEDS.get(MADE.get(done.word, done.word), done.word.capitalize())
        proof = "" if done.record is None else _proof(done.record)
        found.append(_deed(done.said, "at" if done.is_review else "when", what, proof))
    return sorted(found, key=lambda deed: (deed.when is None, deed.when or 0.0))


def _proof(action: Mapping[str, Any]) -> str:
    return f"record {action.get('seq')} of the audit chain {action.get('chain')}"


def _deed(said: Mapping[str, Any], time: str, what: str, proof: str) -> Deed:
    who, why = str(said.get("who") or "somebody"), str(said.get("why") or "")
    return Deed(number(said.get(time)), who, what, why, proof)


def place(life: Life) -> str:
    """Where it came in.

    Examples
    --------
    >>> place({"topic": "feedback", "partition": 3, "offset": 41})
    'topic feedback, partition 3, offset 41'
    >>> place({"topic": "out", "partition": 0, "line": 8})
    'folder out, partition 0, line 8'
    """
    on_files = "line" in life
    kind, name = ("folder", "line") if on_files else ("topic", "offset")
    return f"{kind} {life.get('topic')}, partition {life.get('partition')}, {name} {life.get(name)}"


def held_address(life: Life) -> str | None:
    """The page of the held event; None for one that was not held, or whose place is not known.

    Examples
    --------
    >>> held_address({"action": "hold", "partition": 0, "line": 8})
    '/quarantine/0-7'
    """
    at = life.get("offset") if "offset" in life else life.get("line")
    if life.get("action") != "hold" or not isinstance(at, int):
        return None
    return f"/quarantine/{life.get('partition')}-{at - ('line' in life)}"


def verdict(life: Life) -> str:
    """What was decided.

    Examples
    --------
    >>> verdict({"verdict": "quarantine", "action": "hold"})
    'Quarantined: held back from the learner'
    """
    said = VERDICTS.get(str(life.get("verdict")), str(life.get("verdict")))
    done = ACTIONS.get(str(life.get("action")), str(life.get("action")))
    return f"{said[:1].upper()}{said[1:]}: {done}"


def reasons(life: Life) -> list[Mapping[str, Any]]:
    """Why it was decided so, as the decision says."""
    decision = life.get("decision")
    return said_in(decision.get("reasons")) if isinstance(decision, Mapping) else []


def proof(life: Life) -> str:
    """Which audit record covers the decision."""
    audit = life.get("audit")
    if not isinstance(audit, Mapping):
        return "not at hand here; audit show reads it"
    return f"record {audit.get('record')} of the audit chain {audit.get('chain')}"


def cleaned(text: str) -> str:
    """An id as it can be asked for: not longer than one may be, and text that can be written.

    Examples
    --------
    >>> cleaned("evt-7"), cleaned("a\\ud800b"), len(cleaned("x" * 999))
    ('evt-7', 'a?b', 256)
    """
    return text[:MAX_ID].encode("utf-8", "replace").decode("utf-8")


def address(event_id: str) -> str:
    """The page with the life of this event.

    Examples
    --------
    >>> address("a&b <1>")
    '/lineage?id=a%26b+%3C1%3E'
    """
    return f"/lineage?{urlencode({'id': event_id})}"


def incident_address(name: str) -> str:
    """The page of an incident."""
    return f"/incidents/{quote(name, safe='')}"


def command(event_id: str) -> str:
    """What reads the topics for this event in a shell, safe to paste.

    Examples
    --------
    >>> command("evt 7")
    "poisoning-monitor audit show --config monitor.yaml -- 'evt 7'"
    """
    # What cannot be seen should not be pasted: a line feed, or what turns the writing around.
    said = shlex.quote(event_id) if event_id.isprintable() else "ID"
    return f"poisoning-monitor audit show --config monitor.yaml -- {said}"


def summary(lives: Sequence[Life]) -> str:
    """How often it was decided about.

    Examples
    --------
    >>> summary([{}]), summary([{}, {}])
    ('Decided about once.', 'Decided about 2 times: the same id came again.')
    """
    if len(lives) == 1:
        return "Decided about once."
    return f"Decided about {len(lives)} times: the same id came again."
