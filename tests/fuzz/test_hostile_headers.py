"""Hostile headers: no crash, no neighbour that notices, and none believed."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.fuzz import header_seeds
from tests.fuzz.hostile import mutated
from tests.fuzz.target import SEPARATOR, check_headers, one_header_input, signing

GOOD = dict(signing()[2])
HOSTILE = {
    "nothing": [],
    "null values": [("key-id", None), ("signature", None)],
    "null signature": [("key-id", b"k"), ("signature", None)],
    "the same twice": [*GOOD.items(), ("signature", GOOD["signature"])],
    "two keys": [*GOOD.items(), ("key-id", b"other")],
    "a megabyte of key": [("key-id", b"k" * (1 << 20)), ("signature", GOOD["signature"])],
    "a megabyte of signature": [("key-id", b"k"), ("signature", b"A" * (1 << 20))],
    "no UTF-8": [("key-id", b"\xff\xfe"), ("signature", GOOD["signature"])],
    "line feeds": [("key-id", b"k\nk"), ("signature", GOOD["signature"])],
    "of the other algorithm": [("key-id", b"k"), ("signature", GOOD["signature"] * 2)],
    "cut off": [("key-id", b"k"), ("signature", GOOD["signature"][:-1])],
    "a time that was not signed": [*GOOD.items(), ("signed-at", b"1700000400")],
    "a time of 400 digits": [*GOOD.items(), ("signed-at", b"9" * 400)],
    "a time of other digits": [*GOOD.items(), ("signed-at", "\u0661\u0662".encode())],
    "ten thousand headers": [(f"h{i}", b"x") for i in range(10_000)],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_is_refused(name: str) -> None:
    assert check_headers(HOSTILE[name]).is_refusal


def test_mutations_at_random() -> None:
    rng, pool = random.Random(3), header_seeds()
    for _ in range(60):
        some = [mutated(rng.choice(pool), rng) for _ in range(rng.randint(1, 4))]
        one_header_input(SEPARATOR.join(some))
