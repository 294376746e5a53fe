"""The first promise: a real stream, five lying sources, bad lines of every kind, one command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loadtest.streams import SHARED, load
from monitor.core.types import BoolArray
from monitor.runtime.inject import inject

EVENTS = 45_000
BAD = [
    b"",
    b"not json",
    b"\xff\xfe\x00binary",
    b"[1, 2, 3]",
    b'{"id": "x"}',
    b'{"id": "x", "ts": 1.7e9, "source": "s", "label": 1.5, "features": [1]}',
    b'{"id": 7, "ts": 1.7e9, "source": "s", "label": 1, "features": [1]}',
    b'{"id": "x", "ts": 1.7e9, "source": "s", "label": 1, "features": {"period": 1e999}}',
    b'{"id": "x", "ts": 1.7e9, "source": "s", "label": 1, "features": {"period": NaN}}',
    b'{"id": "x", "ts": 1.7e9, "source": "s", "label": 1, "features": {"surprise": 1}}',
    b'{"id": "x", "ts": 1.7e9, "source": "s", "label": 1, "features": [1, 2]}',
    b'{"id": "x", "ts": 1e18, "source": "s", "label": 1, "features": {"period": 1}}',
    b'{"id": "x", "ts": "yesterday", "source": "s", "label": 1, "features": {"period": 1}}',
    b'{"id": "' + b"x" * 129 + b'", "ts": 1.7e9, "source": "s", "label": 1, "features": {}}',
    b'{"id": "x", "meta": ' + b"[" * 100 + b"]" * 100 + b"}",
    b"[" * 100_000,
    b'{"id": "' + b"x" * (1 << 20) + b'"}',
]


def _attacked_lines(seed: int, pattern: str, prefix: float) -> tuple[list[bytes], BoolArray]:
    stream = load("electricity")
    attacked = inject(
        stream, "flip", rate=0.03, pattern=pattern, colluders=5, clean_prefix=prefix, seed=seed
    )
    lines = attacked.stream.lines()[:EVENTS]
    return lines, attacked.poison[:EVENTS]


@pytest.mark.skipif(not SHARED.exists(), reason="the electricity stream is not here")
@pytest.mark.parametrize(("pattern", "prefix"), [("spread", 0.0), ("burst", 0.3)])
def test_flips_are_held_and_no_line_is_lost(tmp_path: Path, pattern: str, prefix: float) -> None:
    lines, poison = _attacked_lines(1, pattern, prefix)
    rng = np.random.default_rng(2)
    mixed: list[tuple[bytes, bool | None]] = list(zip(lines, poison.tolist(), strict=True))
    for at in sorted(rng.integers(0, len(mixed), size=3 * len(BAD)), reverse=True):
        mixed.insert(int(at), (BAD[int(at) % len(BAD)], None))
    for bad in BAD:
        mixed.insert(int(rng.integers(0, len(mixed))), (bad, None))
    source = tmp_path / "feedback.jsonl"
    source.write_bytes(b"".join(line + b"\n" for line, _ in mixed))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "monitor", "replay", str(source), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr

    by_file = {
        "pass": (out / "accepted.jsonl").read_bytes().split(b"\n")[:-1],
        "hold": (out / "quarantined.jsonl").read_bytes().split(b"\n")[:-1],
        "reject": (out / "invalid.jsonl").read_bytes().split(b"\n")[:-1],
    }
    decisions = [json.loads(line) for line in (out / "decisions.jsonl").open("rb")]
    assert len(decisions) == len(mixed) == sum(map(len, by_file.values()))
    taken = dict.fromkeys(by_file, 0)
    for number, ((line, _), decision) in enumerate(zip(mixed, decisions, strict=True), start=1):
        assert decision["line"] == number
        place = decision["action"]
        assert by_file[place][taken[place]] == line
        taken[place] += 1

    truth = [is_poison for _, is_poison in mixed]
    held = np.array([d["action"] == "hold" for d in decisions])
    bad_rows = np.array([t is None for t in truth])
    assert all(d["verdict"] == "invalid" for d, b in zip(decisions, bad_rows, strict=True) if b)
    assert not any(
        d["verdict"] == "invalid" for d, b in zip(decisions, bad_rows, strict=True) if not b
    )
    poisoned = np.array([t is True for t in truth])
    assert held[poisoned].mean() >= 0.80
    assert held[~poisoned & ~bad_rows].mean() <= 0.01
