"""Records an attacker would send, and hypothesis strategies that make more of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

BASE: dict[str, Any] = {
    "id": "e-1",
    "ts": 1_700_000_500.0,
    "source": "acct-1",
    "label": "legit",
    "features": {"a": 1.0, "b": -0.5, "card": "visa"},
}


def record(**fields: Any) -> bytes:
    """A good event with some fields replaced."""
    return json.dumps({**BASE, **fields}).encode()


def spliced(text: str) -> bytes:
    """A good event with ``text`` as one more member."""
    return json.dumps(BASE).encode()[:-1] + b"," + text.encode("utf-8", "surrogatepass") + b"}"


LOOKALIKES = ("legit", "lеgit", "legіt", "legit\u200b", "legit\u0301", "ＬＥＧＩＴ", "le\u00adgit")
"""One label and six that print much the same: Cyrillic letters, invisible marks, full width."""

CORPUS: dict[str, bytes] = {
    "10 MB of text": spliced('"meta":"' + "x" * 10_000_000 + '"'),
    "10 MB of brackets": b"[" * 10_000_000,
    "10 MB of spaces": b" " * 10_000_000,
    "depth 1,000": spliced('"meta":' + "[" * 1000 + "]" * 1000),
    "depth 1,000 of objects": spliced('"meta":' + '{"a":' * 1000 + "1" + "}" * 1000),
    "depth 1,000, unclosed": spliced('"meta":' + "[" * 1000)[:-1],
    "duplicate id": spliced('"id":"other"'),
    "duplicate label": spliced('"label":"fraud"'),
    "duplicate feature": record().replace(b'"a": 1.0', b'"a": 1.0, "a": 9.0'),
    "duplicate by escape": spliced('"\\u0069d":"other"'),
    "2^64": record(features={"a": 2**64, "b": 0, "card": "visa"}),
    "2^64 as label": record(label=2**64),
    "2^64 as ts": record(ts=2**64),
    "1e999": record().replace(b"1.0", b"1e999"),
    "-1e999 as weight": spliced('"weight":-1e999'),
    "400 digits": record().replace(b"1.0", b"9" * 400),
    "a million digits": record().replace(b"1.0", b"0." + b"3" * 900_000),
    "1e308": record(features={"a": 1e308, "b": -1e308, "card": "visa"}),
    "NaN": record().replace(b"1.0", b"NaN"),
    "Infinity": record().replace(b"1.0", b"-Infinity"),
    "NUL in id": record(id="e\0f"),
    "NUL in source": record(source="\0"),
    "NUL byte": record() + b"\0",
    "NUL bytes": b"\0" * 100,
    "lone surrogate, escaped": spliced('"meta":"\\ud800"'),
    "lone surrogate in label": record().replace(b'"legit"', b'"\\udfff"'),
    "lone surrogate in name": spliced('"\\ud800":1'),
    "lone surrogate, raw": spliced('"meta":"\ud800"'),
    "overlong UTF-8": b'{"id":"\xc0\xaf"}',
    "byte-order mark": b"\xef\xbb\xbf" + record(),
    "UTF-16": record().decode().encode("utf-16"),
    "feature-name flood": record(features={f"f{i}": 1.0 for i in range(50_000)}),
    "feature-name flood within the limit": record(features={f"f{i}": 1.0 for i in range(4000)}),
    "numbers flood": record(features=[0.5] * 100_000),
    "long feature name": record(features={"n" * 500_000: 1.0}),
    "long category": record(features={"a": 1.0, "b": 0.0, "card": "v" * 500_000}),
    "long label": record(label="l" * 500_000),
    "long source": record(source="s" * 500_000),
    "prediction flood": record(prediction={f"c{i}": 0.0 for i in range(20_000)}),
    "gradient flood": record(gradient=[1.0] * 100_000),
    "gradient of zeros": record(gradient=[]),
    "negative zero": record(ts=-0.0, features={"a": -0.0, "b": -0.0, "card": ""}),
    "the year 10000": record(ts="9999-12-31T23:59:59.999999999Z"),
    "an empty object": b"{}",
    "nothing": b"",
    **{f"look-alike label {i}": record(label=label) for i, label in enumerate(LOOKALIKES)},
}

_text = st.text(st.characters(codec=None, categories=None), max_size=12)
_number = st.one_of(
    st.floats(), st.integers(-(2**70), 2**70), st.sampled_from([1e308, 5e-324, -0.0, 2**63, 2**64])
)
_scalar = st.one_of(st.none(), st.booleans(), _number, _text, st.sampled_from(LOOKALIKES))
_value = st.recursive(
    _scalar,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_text, inner, max_size=4)),
    max_leaves=12,
)
_names = st.sampled_from([*BASE, "subject", "prediction", "gradient", "weight", "meta", "zzz"])


def _dumped(fields: dict[str, Any]) -> bytes:
    return json.dumps({**BASE, **fields}, ensure_ascii=False).encode("utf-8", "surrogatepass")


def events() -> st.SearchStrategy[bytes]:
    """Events of which some fields are anything."""
    return st.dictionaries(_names, _value, max_size=3).map(_dumped)


def records() -> st.SearchStrategy[bytes]:
    """Anything: odd events, cut or spoilt events, pieces of the corpus, noise."""
    small = [value for value in CORPUS.values() if len(value) < 20_000]
    return st.one_of(
        events(),
        st.binary(max_size=200),
        st.sampled_from(small),
        st.tuples(st.sampled_from(small), st.integers(0, 2**32)).map(
            lambda pair: mutated(pair[0], random.Random(pair[1]))
        ),
    )


def _flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 20)]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randrange(1, 30)] * rng.choice([1, 2, 50])


def _insert(data: bytearray, rng: random.Random) -> None:
    words = (
        b'"',
        b"\\",
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b",",
        b":",
        b"1e999",
        b"\0",
        b"\xff",
        b"null",
    )
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(words)


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (_flip, _cut, _repeat, _insert)


def mutated(value: bytes, rng: random.Random) -> bytes:
    """``value`` after a few random edits."""
    data = bytearray(value)
    for _ in range(rng.randint(1, 5)):
        if data:
            rng.choice(_MUTATIONS)(data, rng)
    return bytes(data)
