"""Patterns of sources: a text in which ``*`` stands for any characters, also none."""

from __future__ import annotations

from collections.abc import Iterable


def matches(pattern: str, text: str) -> bool:
    """Whether the whole of ``text`` fits. Takes no longer than a search, whatever the pattern.

    Examples
    --------
    >>> matches("acct-*", "acct-7"), matches("acct-*", "my-acct-7"), matches("a*b*c", "a-b-b-c")
    (True, False, True)
    >>> matches("ab*ba", "aba"), matches("*", ""), matches("a.c", "abc")
    (False, True, False)
    """
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def matches_any(patterns: Iterable[str], text: str) -> bool:
    """Whether ``text`` fits one of ``patterns``."""
    return any(matches(pattern, text) for pattern in patterns)
