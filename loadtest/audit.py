"""What the audit chain costs the gate, and how fast `audit verify` is.

    python loadtest/audit.py [--events N] [--json]

Judges a made stream twice in memory, in turn with and without the chain, and verifies a folder of
so many decisions. Processor time of one thread; the best of several rounds, as others disturb.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monitor.core.types import RawBatch
from monitor.gate import Gate, GateConfig
from monitor.state.audit import Chaining, Head, Judging, extend
from monitor.transport.audit_folder import AUDIT, DECISIONS, verify_folder

BATCH, ROUNDS, GROWN = 2048, 3, 16_384
BY, JUDGING = Chaining("local", "loadtest"), Judging(0, 1, "empty@0")


def stream(n: int) -> list[bytes]:
    """Events of two classes with eight features."""
    rng = np.random.default_rng(7)
    y = rng.random(n) < 0.4
    x = np.round(rng.normal(size=(n, 8)) + 2.0 * y[:, None], 4)
    source = rng.integers(500, size=n)
    return [
        orjson.dumps(
            {
                "id": f"e{i}",
                "ts": 1.7e9 + i / 100,
                "source": f"acct-{source[i]}",
                "label": "fraud" if y[i] else "legit",
                "features": x[i].tolist(),
            }
        )
        for i in range(n)
    ]


def cost(events: list[bytes]) -> dict[str, float]:
    """Microseconds an event, of the gate and of the chain."""
    gate, chain, counted = [], [], len(events) - -(-GROWN // BATCH) * BATCH
    for _ in range(ROUNDS):
        made, head, spent = Gate(GateConfig()), Head(), np.zeros(2)
        state = made.start()
        for start in range(0, len(events), BATCH):
            raw = RawBatch.of(events[start : start + BATCH], start=start)
            began = time.thread_time()
            decisions, state = made.step(state, raw)
            judged = time.thread_time()
            _, head = extend(head, BY, JUDGING, decisions.offset, decisions.records)
            if start >= GROWN:  # a young gate judges in small parts, which takes longer
                spent += judged - began, time.thread_time() - judged
        gate.append(spent[0] / counted * 1e6)
        chain.append(spent[1] / counted * 1e6)
    return {"gate_us": min(gate), "chain_us": min(chain), "share": min(chain) / min(gate)}


def speed(events: list[bytes], repeat: int) -> dict[str, float]:
    """Decisions a second of `audit verify`, whole and with one record changed in the middle."""
    gate = Gate(GateConfig(local=True))
    records: list[bytes] = []
    for start in range(0, len(events), BATCH):
        raw = RawBatch.of(events[start : start + BATCH], start=start)
        records += gate.check(raw).records
    every = [
        record.replace(b'"line":', b'"line":%d' % part)
        for part in range(1, repeat + 1)
        for record in records
    ]
    found = {"decisions": float(len(every)), "mean_bytes": sum(map(len, every)) / len(every)}
    with tempfile.TemporaryDirectory() as place:
        folder, head, lines = Path(place), Head(), []
        for start in range(0, len(every), BATCH):
            part = every[start : start + BATCH]
            offsets = np.arange(start, start + len(part))
            more, head = extend(head, BY, JUDGING, offsets, part)
            lines += more
        (folder / AUDIT).write_bytes(b"".join(line + b"\n" for line in lines))
        for name in ("whole", "tampered"):
            (folder / DECISIONS).write_bytes(b"".join(record + b"\n" for record in every))
            best = float("inf")
            for _ in range(3):
                began = time.process_time()
                report = verify_folder(folder)
                best = min(best, time.process_time() - began)
                assert len(report.findings) == (name == "tampered")
            found[f"{name}_per_second"] = len(every) / best
            every[len(every) // 2] = every[len(every) // 2].replace(b"accept", b"accePt")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--repeat", type=int, default=20, help="copies to verify")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    events = stream(args.events)
    found = cost(events) | speed(events, args.repeat)
    if args.json:
        print(orjson.dumps(found).decode())
        return
    for name, value in found.items():
        print(f"{name:24} {value:12,.3f}")


if __name__ == "__main__":
    main()
