"""Are faults of the pipeline called faults, and nobody accused? Broken copies of honest streams.

    python loadtest/data_faults.py [--streams …] [--events N] [--out FILE]

Two thirds into each stream something upstream breaks for 800 events. An incident of kind
``data_fault`` is right; one of kind ``drift`` accuses nobody either; a ``campaign`` that was not
there in the whole stream is a false accusation. ``unit`` (a feature a hundred times as large) and
``swap`` (two features in each other's place) have no name of their own: they are shifts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

if __name__ == "__main__":  # from any folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtest import streams
from loadtest.detection_cells import head
from loadtest.incidents import BATCH, DEVELOPED, OTHERS, incidents_of
from monitor.gate import Gate

Row = dict[str, Any]
Event = dict[str, Any]
LENGTH = 800
AGAIN = "-again"


def _twice(before: list[Event], here: list[Event], _: Any) -> list[Event]:
    """The batch before, as it was."""
    return [*before[-len(here) :], *here]


def _twice_new_ids(before: list[Event], here: list[Event], _: Any) -> list[Event]:
    """The batch before, under new ids."""
    return [*({**e, "id": e["id"] + AGAIN} for e in before[-len(here) :]), *here]


def _each_twice(_: list[Event], here: list[Event], __: Any) -> list[Event]:
    return [one for e in here for one in (e, {**e, "id": e["id"] + AGAIN})]


def _of_feature(change: Callable[[Event, Any], Any]) -> Callable[..., list[Event]]:
    def broken(before: list[Event], here: list[Event], name: Any) -> list[Event]:
        last = before[-1]["features"][name]
        for event in here:
            event["features"][name] = change(event, (event["features"][name], last))
        return here

    return broken


def _swap(_: list[Event], here: list[Event], __: Any) -> list[Event]:
    for event in here:
        features = event["features"]
        one, other = (0, 1) if isinstance(features, list) else sorted(features)[:2]
        features[one], features[other] = features[other], features[one]
    return here


def _late(_: list[Event], here: list[Event], __: Any) -> list[Event]:
    for event in here[::2]:
        event["ts"] -= 30.0
    return here


FAULTS: dict[str, Callable[..., list[Event]]] = {
    "sent twice": _twice,
    "sent twice, new ids": _twice_new_ids,
    "each event twice": _each_twice,
    "frozen": _of_feature(lambda _, values: values[1]),
    "missing": _of_feature(lambda _, values: None),
    "zero": _of_feature(lambda _, values: 0.0),
    "unit": _of_feature(lambda _, values: 100.0 * float(values[0])),
    "swap": _swap,
    "late": _late,
    "gap": lambda before, here, name: here,
}


def broken(events: list[Event], fault: str) -> list[bytes]:
    """The stream with the fault in it."""
    at = len(events) * 2 // 3
    features = events[0]["features"]
    names = list(range(len(features))) if isinstance(features, list) else sorted(features)
    distinct = [len({e["features"][name] for e in events[:at]}) for name in names]
    name = names[int(np.argmax(distinct))]
    here = FAULTS[fault](events[:at], events[at : at + LENGTH], name)
    after = events[at + LENGTH :]
    if fault == "gap":
        for event in (*here, *after):
            event["ts"] += 7_200.0
    return [orjson.dumps(event) for event in (*events[:at], *here, *after)]


def called(lines: list[bytes]) -> list[tuple[str, str]]:
    """Kind and key of every incident of a stream."""
    gate = Gate()
    for start in range(0, len(lines), BATCH):
        gate.check(lines[start : start + BATCH])
    return [(one["kind"], one["key"]) for one in incidents_of(gate)]


def measured(name: str, fault: str, events: int) -> Row:
    """One broken stream."""
    lines = head(streams.load(name), events).lines()
    before = Counter(called(lines))
    found = Counter(called(broken([orjson.loads(line) for line in lines], fault))) - before
    kinds = Counter(kind for kind, _ in found.elements())
    return {"stream": name, "fault": fault, "kinds": dict(kinds), "keys": sorted(found)}


def main() -> None:
    """Run the cells, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--streams", nargs="*", default=[*DEVELOPED, *OTHERS])
    parser.add_argument("--events", type=int, default=9_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for fault in FAULTS:
        for name in args.streams:
            rows.append(measured(name, fault, args.events))
            print(orjson.dumps(rows[-1]).decode(), flush=True)
    print("| fault | data fault | drift only | nothing | campaign |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for fault in FAULTS:
        kinds = [row["kinds"] for row in rows if row["fault"] == fault]
        fine = sum("data_fault" in k and "campaign" not in k for k in kinds)
        drift = sum("drift" in k and len(k) == 1 for k in kinds)
        accused = sum("campaign" in k for k in kinds)
        print(f"| {fault} | {fine} | {drift} | {sum(not k for k in kinds)} | {accused} |")
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
