"""Stored states of every released form, and the script that adds the present one.

    python tests/golden/golden.py [--as-format-1 | --journal]

writes ``state-<format>-<layout>.zst`` beside this file: magic, stamp and snapshot of a gate that
has judged a seeded stream, as the service stores them. Run it when the test says that the stored
form has changed, and commit the new file next to the old ones, which must go on being read.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import xxhash
import zstandard

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from monitor.core.types import RawBatch  # noqa: E402
from monitor.gate import Gate, GateConfig  # noqa: E402
from monitor.runtime.service import Service  # noqa: E402
from monitor.state import codec, partition, recovery  # noqa: E402
from monitor.transport import local_journal  # noqa: E402
from monitor.transport.local import FileLines, LocalTransport  # noqa: E402
from tests.sim.toy import ToyGate  # noqa: E402

CONFIG = GateConfig(warmup_events=100)
STORED, MORE = 700, 200
FIELDS = ("stamp", "snapshot")


def stream(n: int, start: int = 0) -> RawBatch:
    """Records ``start`` to ``start + n`` of the golden stream, which must never change."""
    found = []
    for i in range(start, start + n):
        rng = np.random.default_rng([2024, i])
        y = bool(rng.random() < 0.4)
        x = np.round(rng.normal(size=3) + 2.5 * y, 4).tolist()
        event = {
            "id": f"g-{i}",
            "ts": 1.7e9 + i,
            "source": f"s{rng.integers(30)}",
            "label": "yes" if y else "no",
            "features": {"a": x[0], "b": x[1], "c": x[2], "d": "xyz"[int(rng.integers(3))]},
            "subject": f"item{rng.integers(20)}",
        }
        if i % 3 == 0:
            event["gradient"] = x
        found.append(orjson.dumps(event) if i % 50 else b"{not json")
    return RawBatch.of(found, start=start)


def judged() -> tuple[Gate, Any]:
    """The gate, and its state after the stored part of the stream."""
    gate = Gate(CONFIG)
    state = gate.start()
    for at in range(0, STORED, 100):
        _, state = gate.step(state, stream(100, at))
    return gate, state


def _shape_of(tree: Any) -> Any:
    """Names and types in a stored tree, without what depends on the data."""
    if isinstance(tree, dict):
        if "~" in tree:
            return f"{tree['~']}[{len(tree['s'])}]"
        return {key: _shape_of(value) for key, value in sorted(tree.items())}
    if isinstance(tree, list):
        return [_shape_of(tree[0])] if tree else []
    if isinstance(tree, bytes) and tree[:8] == codec.MAGIC:
        return _shape_of(codec.unseal(tree))
    return "number" if isinstance(tree, int | float) else type(tree).__name__


def layout(body: bytes) -> str:
    """16 hex digits that change with any name, type or version in a stored state."""
    tree = codec.unseal(body)
    versions = {name: version for name, (version, _) in tree["detectors"].items()}
    shape = {
        "state": _shape_of({k: v for k, v in tree.items() if k not in ("detectors", "labels")}),
        "detectors": {
            n: _shape_of(codec.unseal(blob)) for n, (_, blob) in tree["detectors"].items()
        },
        "labels": [len(row) for row in tree["labels"][:1]],
        "versions": versions,
        "format": tree["format"],
        "stamp": [recovery.STAMP_VERSION, *sorted(recovery.Stamp.__struct_fields__)],
        "snapshot": recovery.SNAPSHOT_VERSION,
        "journal": [
            local_journal.JOURNAL_VERSION,
            *local_journal.Header.__struct_fields__,
            *local_journal.Entry.__struct_fields__,
        ],
    }
    return xxhash.xxh3_64_hexdigest(orjson.dumps(shape, option=orjson.OPT_SORT_KEYS))


@dataclass(frozen=True)
class Golden:
    """One stored state: its stamp and snapshot, as on a topic or in a journal."""

    stamp: bytes
    snapshot: bytes

    @property
    def body(self) -> bytes:
        """The gate's dump inside the snapshot."""
        return recovery.unseal(self.snapshot)[2]

    @classmethod
    def read(cls, path: Path) -> Golden:
        """The golden in ``path``."""
        parts = msgspec.msgpack.decode(zstandard.decompress(path.read_bytes()))
        return cls(*(parts[name] for name in FIELDS))

    def write(self, folder: Path = HERE) -> Path:
        """Store it under the name that says its format and layout."""
        number = codec.unseal(self.body)["format"]
        path = folder / f"state-{number}-{layout(self.body)}.zst"
        packed = msgspec.msgpack.encode({name: getattr(self, name) for name in FIELDS})
        path.write_bytes(zstandard.compress(packed, 19))
        return path


@functools.cache
def present() -> Golden:
    """What the present code stores."""
    gate, state = judged()
    stamp = recovery.advance(
        recovery.begin(0, 0, 1), STORED, STORED, policy_version=1, snapshot=True
    )
    return Golden(stamp.encode(), recovery.seal(0, STORED, gate.dump(state)))


def as_format_1(golden: Golden) -> Golden:
    """As the first version stored it: labels without owners, stamps without ``unjudged``."""
    tree = codec.unseal(golden.body)
    tree["format"] = 1
    tree["labels"] = [row[:2] for row in tree["labels"]]
    stamp = orjson.loads(golden.stamp)
    del stamp["unjudged"], stamp["check"]
    stamp["version"] = 1
    return Golden(orjson.dumps(stamp), recovery.seal(0, STORED, codec.seal(tree)))


def journal_folder() -> Path:
    """Where the half-done local run of the present journal version belongs."""
    return HERE / f"journal-{local_journal.JOURNAL_VERSION}"


def half_a_run(folder: Path) -> Path:
    """A local run of the tests' toy gate, killed half-way: ``input.jsonl`` and ``out``."""
    folder.mkdir(parents=True)
    lines = folder / "input.jsonl"
    lines.write_bytes(b"".join(b'{"n":%d}\n' % i for i in range(100)))

    class Dies:
        commits = 0

        def committed(self, *_: Any) -> None:
            self.commits += 1
            if self.commits == 5:
                raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        local_run(folder, Dies())
    return folder


def local_run(folder: Path, *observers: Any) -> None:
    """Run, or go on with, the toy gate in ``folder``."""
    transport = LocalTransport(FileLines([folder / "input.jsonl"]), folder / "out", finishes=True)
    service = Service(
        *(ToyGate(), transport), observers=observers, batch_events=8, snapshot_every_batches=3
    )
    service.run(threading.Event())


def main() -> None:
    """Write the present form, or that of format 1, or a half-done local run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as-format-1", action="store_true", help="the first version's form")
    parser.add_argument("--journal", action="store_true", help="a half-done local run instead")
    args = parser.parse_args()
    if args.journal:
        os.chdir(HERE)  # a journal names its input, which must be no path of this machine
        print(half_a_run(Path(journal_folder().name)))
        return
    golden = as_format_1(present()) if args.as_format_1 else present()
    print(golden.write())
    assert partition.FORMAT in partition.READABLE


if __name__ == "__main__":
    main()
