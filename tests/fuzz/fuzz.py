"""Fuzz the gate with raw bytes until told to stop.

    python tests/fuzz/fuzz.py [--runs N] [--seed S] [--headers] [FOLDER]

With atheris (the extra ``fuzz``; Linux) the search is guided by coverage and new inputs go to
FOLDER; without it, records of the hostile corpus are mutated at random, the same way for the same
seed. A broken promise ends it with the input in ``crash-<hash>`` and exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.progress import track

from tests.fuzz.hostile import CORPUS, mutated

SMALL = 20_000


def seeds() -> list[bytes]:
    """Inputs to begin with."""
    from tests.fuzz.target import neighbour

    small = [value for value in CORPUS.values() if len(value) < SMALL]
    return [b"\1" + value for value in small] + [b"\0" + neighbour(i) for i in range(5)]


def header_seeds() -> list[bytes]:
    """Headers to begin with, each as its name, NUL and its value."""
    values = (b"k", bytes(64), bytes(range(32)), b"A" * 88, b"A" * 43 + b"=", b"1700000000.5", b"")
    names = (b"key-id", b"signature", b"signed-at")
    return [name + b"\0" + value for name in names for value in values]


def plain(runs: int, seed: int, *, headers: bool) -> int:
    """Mutations at random; the exit code."""
    from tests.fuzz.target import SEPARATOR, one_header_input, one_input

    rng, pool = random.Random(seed), header_seeds() if headers else seeds()
    for number in track(range(runs), description="fuzzing"):
        if headers:
            some = [rng.choice(pool) for _ in range(rng.randint(1, 4))]
            data = SEPARATOR.join(mutated(one, rng) if rng.random() < 0.5 else one for one in some)
        else:
            picked = [mutated(rng.choice(pool)[1:], rng) for _ in range(rng.randint(1, 4))]
            data = rng.choice([b"\0", b"\1", b"\1"]) + SEPARATOR.join(picked)
        try:
            (one_header_input if headers else one_input)(data)
        except Exception as error:
            path = Path(f"crash-{hashlib.sha256(data).hexdigest()[:16]}")
            path.write_bytes(data)
            print(f"run {number}: {type(error).__name__}: {error}\nthe input is in {path}")
            return 1
    return 0


def guided(runs: int, seed: int, folder: Path, *, headers: bool) -> int:
    """With atheris; does not return."""
    import atheris

    with atheris.instrument_imports(
        include=["monitor.core", "monitor.decide", "monitor.provenance"]
    ):
        from tests.fuzz.target import one_header_input, one_input, warm

    warm()
    folder.mkdir(parents=True, exist_ok=True)
    for value in header_seeds() if headers else seeds():
        (folder / hashlib.sha256(value).hexdigest()[:16]).write_bytes(value)
    options = [f"-atheris_runs={runs}", f"-seed={seed}", f"-max_len={SMALL}", str(folder)]
    atheris.Setup([sys.argv[0], *options], one_header_input if headers else one_input)
    atheris.Fuzz()
    return 0


def main() -> int:
    """Guided if possible."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(".cache/fuzz"))
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="mutate at random even with atheris")
    parser.add_argument("--headers", action="store_true", help="bytes of headers, not of records")
    args = parser.parse_args()
    if not args.plain:
        try:
            return guided(args.runs, args.seed, args.folder, headers=args.headers)
        except ImportError:
            print("atheris is not installed: mutating at random (extra `fuzz` for more)")
    return plain(args.runs, args.seed, headers=args.headers)


if __name__ == "__main__":
    sys.exit(main())
