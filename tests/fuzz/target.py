"""The fuzz target: a batch of raw records, between neighbours that must not notice.

What is promised of every batch, whatever is in it: no exception, one decision a record, in order,
that is JSON with the fields of the contract; the neighbours stay valid; risks are finite; the
state can be stored and read back.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from monitor.config.policy import Policy
from monitor.core.provenance import Outcome
from monitor.core.types import Action, RawBatch, Verdict
from monitor.gate import Gate, GateConfig
from monitor.provenance.signing import signer

SEPARATOR = b"\n"
FIELDS = ("id", "ts", "source", "label", "partition", "offset", "verdict", "action", "risk")


def neighbour(i: int) -> bytes:
    """An ordinary event."""
    rng = np.random.default_rng([5, i])
    y = bool(rng.random() < 0.5)
    features = {
        "a": round(float(rng.normal() + 2 * y), 3),
        "b": round(float(rng.normal()), 3),
        "card": ("visa", "amex", "giro")[int(rng.integers(3))],
    }
    event = {
        "id": f"n-{i}",
        "ts": 1_700_000_000 + i,
        "source": f"acct-{rng.integers(40)}",
        "label": "fraud" if y else "legit",
        "features": features,
    }
    return json.dumps(event).encode()


@functools.cache
def warm() -> tuple[Gate, Any]:
    """A gate that knows the stream, and its state."""
    gate = Gate(GateConfig(warmup_events=64))
    return gate, gate.step(gate.start(), RawBatch.of([neighbour(i) for i in range(400)]))[1]


def check(values: Sequence[bytes], *, young: bool = False) -> list[int]:
    """Judge ``values`` between neighbours; their verdicts. AssertionError on a broken promise."""
    gate, state = warm()
    if young:
        state = gate.start()
    batch = [neighbour(1000), *values, neighbour(1001)]
    raw = RawBatch.of(batch, start=400)
    decided, after = gate.step(state, raw)
    assert decided.failures == (), decided.failures
    assert len(decided.records) == len(batch)
    assert decided.verdict[0] != Verdict.INVALID and decided.verdict[-1] != Verdict.INVALID
    assert np.isfinite(decided.risk).all()
    assert ((decided.verdict == Verdict.INVALID) == (decided.action == Action.REJECT)).all()
    for at, found in enumerate(decided.records):
        said = json.loads(found, parse_constant=_no_constant)
        assert all(name in said for name in FIELDS), said
        assert said["offset"] == 400 + at
        assert len(found) < 100_000
    stored = gate.dump(after)
    assert gate.dump(gate.load(stored)) == stored
    return [int(v) for v in decided.verdict[1:-1]]


def _no_constant(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


def one_input(data: bytes) -> None:
    """What a fuzzer calls: records are separated by line feeds; the first byte picks the state."""
    check(data[1:].split(SEPARATOR), young=data[:1] == b"\0")


@functools.cache
def signing() -> tuple[Gate, Any, list[tuple[str, bytes]]]:
    """A gate that wants everything signed, its state, and good headers of ``neighbour(1000)``."""
    secret = bytes(range(32))
    key = {"id": "k", "algorithm": "hmac-sha256", "secret": "s"}
    part = {"keys": [key], "default": "required", "replay_window_seconds": 10.0}
    policy = Policy.model_validate({"provenance": part})
    gate = Gate(GateConfig(warmup_events=64, secrets={"s": secret}.get), policy)
    sign = signer("hmac-sha256", secret)
    return gate, warm()[1], [("key-id", b"k"), ("signature", sign(neighbour(1000)))]


def check_headers(found: Sequence[tuple[str, bytes | None]]) -> Outcome:
    """Judge an event with these headers between signed neighbours. AssertionError as above."""
    gate, state, good = signing()
    values = [neighbour(1000)] * 3
    raw = replace(RawBatch.of(values, start=400), headers=[good, found, good])
    decided, after = gate.step(state, raw)
    assert decided.provenance is not None
    outcome = [Outcome(int(value)) for value in decided.provenance]
    assert outcome[0] is outcome[2] is Outcome.VERIFIED
    assert outcome[1].is_refusal or set(good) <= set(found)
    for record in decided.records:
        assert len(record) < 10_000 and "key_id" in json.loads(record)
    assert set(after.signed.newest) == {"k"}
    return outcome[1]


def one_header_input(data: bytes) -> None:
    """What a fuzzer calls: line feeds between headers, NUL between name and value."""
    pairs = [line.partition(b"\0") for line in data.split(SEPARATOR)]
    check_headers(
        [(n.decode("utf-8", "replace"), v if is_there else None) for n, is_there, v in pairs]
    )


def calls(run: Callable[[], object]) -> int:
    """Function calls, of Python and of C, that ``run`` makes: work that no clock can disturb."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count
