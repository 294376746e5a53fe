"""What signatures cost: verified events a second, and the gate with and without them.

    python loadtest/provenance.py [--events N] [--repeats N] [--json FILE]

Events per second of processor time, of one core: on a machine that does other things too, seconds
of the clock would measure these. Each figure is the best of the repeats, which take turns.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

if __name__ == "__main__":  # from any folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monitor.config.policy import Policy
from monitor.core.types import RawBatch
from monitor.gate import Gate, GateConfig
from monitor.provenance.signing import public_key, signer, verifier

FEATURES, BATCH = 16, 512
SEED, SECRET = bytes(range(32)), bytes(range(32, 64))
THREADS = 2


def values(n: int, start: int = 0) -> list[bytes]:
    """Ordinary events of 16 features and two labels."""
    rng = np.random.default_rng([11, start])
    y = rng.integers(0, 2, n)
    x = (rng.normal(size=(n, FEATURES)) + y[:, None]).round(3)
    return [
        orjson.dumps(
            {
                "id": f"e-{start + i}",
                "ts": 1_700_000_000 + start + i,
                "source": f"acct-{int(rng.integers(500))}",
                "label": ["legit", "fraud"][int(y[i])],
                "features": x[i].tolist(),
            }
        )
        for i in range(n)
    ]


def policies() -> dict[str, Policy]:
    """Without a registry, and one that wants every event signed."""
    ed = {
        "id": "ed25519",
        "algorithm": "ed25519",
        "public_key": base64.b64encode(public_key(SEED)).decode(),
    }
    mac = {"id": "hmac-sha256", "algorithm": "hmac-sha256", "secret": "s"}
    part = {"keys": [ed, mac], "default": "required"}
    signed = Policy.model_validate({"provenance": part})
    optional = Policy.model_validate({"provenance": {"keys": [ed, mac]}})
    return {"unused": Policy(), "optional": optional, "required": signed}


def signed(events: Sequence[bytes], algorithm: Any, key: bytes) -> list[list[tuple[str, bytes]]]:
    """Their headers."""
    sign = signer(algorithm, key)
    return [[("key-id", algorithm.encode()), ("signature", sign(value))] for value in events]


def best(runs: dict[str, Callable[[], None]], n: int, repeats: int) -> dict[str, float]:
    """Events per second of processor time, by name."""
    spent = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.process_time()
            run()
            spent[name] = min(spent[name], time.process_time() - began)
    return {name: n / seconds for name, seconds in spent.items()}


def verifying(events: Sequence[bytes]) -> dict[str, Callable[[], None]]:
    """Signatures alone."""
    found: dict[str, Callable[[], None]] = {}
    for algorithm, private, public in (
        ("ed25519", SEED, public_key(SEED)),
        ("hmac-sha256", SECRET, SECRET),
    ):
        verify, sign = verifier(algorithm, public), signer(algorithm, private)  # type: ignore[arg-type]
        pairs = [(sign(value), value) for value in events]

        def run(verify: Any = verify, pairs: Any = pairs) -> None:
            if not all(verify(*pair) for pair in pairs):
                raise RuntimeError("a good signature was refused")

        found[f"verify {algorithm}"] = run
    return found


def gates(events: Sequence[bytes], prime: int) -> dict[str, Callable[[], None]]:
    """A warm gate on the same events, by what the policy asks and what they bring."""
    plain = Gate(GateConfig(secrets={"s": SECRET}.get))
    for start in range(0, prime, BATCH):
        plain.check(values(BATCH, 10_000_000 + start))
    headers: dict[str, Any] = {
        "none": None,
        "ed25519": signed(events, "ed25519", SEED),
        "hmac-sha256": signed(events, "hmac-sha256", SECRET),
    }
    cases = {
        "gate, provenance unused": ("unused", "none"),
        "gate, provenance unused, headers there": ("unused", "ed25519"),
        "gate, optional, nothing signed": ("optional", "none"),
        "gate, required, hmac-sha256": ("required", "hmac-sha256"),
        "gate, required, ed25519": ("required", "ed25519"),
    }
    wanted = policies()
    return {
        name: _judging(plain.with_policy(wanted[policy]), events, headers[sent])
        for name, (policy, sent) in cases.items()
    }


def _judging(gate: Gate, events: Sequence[bytes], headers: Any) -> Callable[[], None]:
    def run() -> None:
        state = gate.state
        for start in range(0, len(events), BATCH):
            raw = RawBatch.of(events[start : start + BATCH], start=start)
            if headers is not None:
                raw = replace(raw, headers=headers[start : start + BATCH])
            decided, state = gate.step(state, raw)
            if decided.provenance is not None and (decided.provenance > 2).any():
                raise RuntimeError("a good event was refused")

    return run


def threads(events: Sequence[bytes]) -> dict[str, float]:
    """Ed25519 by the clock, in one thread and in two: verified events a second."""
    verify, sign = verifier("ed25519", public_key(SEED)), signer("ed25519", SEED)
    pairs = [(sign(value), value) for value in events]

    def check(some: list[tuple[bytes, bytes]]) -> None:
        for pair in some:
            verify(*pair)

    found = {}
    for count in (1, THREADS):
        parts = [pairs[i::count] for i in range(count)]
        with ThreadPoolExecutor(count) as pool:
            began = time.perf_counter()
            list(pool.map(check, parts))
            found[f"{count} threads"] = len(pairs) / (time.perf_counter() - began)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=4096)
    parser.add_argument("--prime", type=int, default=4096, help="events that warm the gate up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    events = values(given.events)
    found = best({**verifying(events), **gates(events, given.prime)}, len(events), given.repeats)
    clock = threads(events)
    for name, rate in found.items():
        print(f"{name:<42} {rate:>10,.0f} events per CPU second")
    for name, rate in clock.items():
        print(f"ed25519 by the clock, {name:<20} {rate:>10,.0f} events/s")
    if given.json is not None:
        result = {
            "events": len(events),
            "bytes": float(np.mean([len(value) for value in events])),
            "cpu_count": os.cpu_count(),
            "per_cpu_second": found,
            "ed25519_by_the_clock": clock,
        }
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
