"""Decoded values in error messages: short, printable, on one line."""

from __future__ import annotations

from typing import Any

import msgspec


def clean(text: str) -> str:
    """The same text with lone surrogates, which UTF-8 cannot carry, replaced by U+FFFD.

    Examples
    --------
    >>> clean("ok"), len(clean(chr(0xD800) + "x"))
    ('ok', 2)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def shown(value: Any, width: int = 60) -> str:
    """A decoded JSON value as at most ``width`` printable characters.

    Examples
    --------
    >>> shown("acct-71"), shown([1, None]), shown("x" * 100, width=8)
    ('"acct-71"', '[1,null]', '"xxxxxx…')
    """
    if isinstance(value, str):
        value = clean(value[: width + 1])
    elif isinstance(value, list | dict):
        value = _head(value, width)
    try:
        text = msgspec.json.encode(value).decode()
    except (ValueError, TypeError, RecursionError):
        text = ascii(value)
    text = "".join(c if c.isprintable() else "?" for c in text[: width + 1])
    return text if len(text) <= width else text[: width - 1] + "…"


def _head(value: list[Any] | dict[str, Any], width: int) -> Any:
    """The beginning of a container, so that a large one costs nothing to show."""
    if isinstance(value, list):
        return value[: width // 2]
    return dict(zip(value, value.values(), strict=True)) if len(value) <= width else list(value)[:1]
