"""Why a record is not an event: the slow path, for records the typed decoder refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from monitor.core.errors import RejectCode
from monitor.core.events import INT64_MAX, MAX_LABEL_CHARS, Partial
from monitor.core.limits import Limits
from monitor.core.names import STRINGS, first_twice, is_ambiguous
from monitor.core.numbers import parse_json
from monitor.core.text import clean, shown

Finding = tuple[RejectCode, str]
Check = Callable[[Any, Limits], Finding | None]

NOT_NUMBERS = re.compile(rb"NaN|Infinity", re.IGNORECASE)
REQUIRED = ("id", "ts", "source", "label", "features")


def depth(value: bytes) -> int:
    """Deepest nesting of objects and arrays in JSON text, found without parsing it.

    Examples
    --------
    >>> depth(b'{"a": [1, {"b": "[[[["}]}')
    3
    """
    data = np.frombuffer(STRINGS.sub(b"", value), dtype=np.uint8)
    # "[" and "{" differ in one bit, and so do "]" and "}".
    folded = data & 0xDF
    steps = (folded == 0x5B).astype(np.int8) - (folded == 0x5D).astype(np.int8)
    return int(np.cumsum(steps, dtype=np.int64).max(initial=0))


def utf8_fault(value: bytes) -> Finding | None:
    """Where the bytes stop being UTF-8, or None."""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        text = f"the record is not UTF-8 text: byte {error.start} is 0x{value[error.start]:02x}"
        return RejectCode.NOT_UTF8, text
    return None


def diagnose(value: bytes, limits: Limits) -> tuple[RejectCode, str, Partial]:
    """Code, sentence, and what could be read, of a record that is not a valid event.

    Parameters
    ----------
    value
        The record's bytes.
    limits
        The bounds it was held against.
    """
    found = _before_parsing(value, limits)
    if found is not None:
        return *found, Partial()
    try:
        tree = parse_json(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return _not_json(value, str(error))
    if not isinstance(tree, dict):
        kind = _kind(tree)
        return RejectCode.NOT_AN_OBJECT, f"the record is {kind}; expected a JSON object", Partial()
    finding = next(_findings(tree, limits), None)
    if finding is None and is_ambiguous(value):
        text = f"the name {shown(first_twice(value))} stands twice in one object; expected it once"
        finding = RejectCode.DUPLICATE_NAME, text
    code, text = finding or (RejectCode.WRONG_TYPE, "the record is not an event")
    return code, text, partial_of(tree, limits)


def _before_parsing(value: bytes, limits: Limits) -> Finding | None:
    if len(value) > limits.max_message_bytes:
        text = f"the record has {len(value)} bytes; at most {limits.max_message_bytes} are allowed"
        return RejectCode.TOO_LARGE, text
    found = utf8_fault(value)
    if found is None and depth(value) > limits.max_depth:
        text = f"objects and arrays are nested deeper than {limits.max_depth} levels"
        return RejectCode.TOO_DEEP, text
    return found


def _not_json(value: bytes, complaint: str) -> tuple[RejectCode, str, Partial]:
    """Malformed, or a number that no float can hold."""
    out_of_range = "out of range" in complaint or "infinity" in complaint
    if out_of_range or NOT_NUMBERS.search(STRINGS.sub(b"", value)):
        try:
            tree = json.loads(value)
        except (ValueError, RecursionError):
            tree = None
        where = _non_finite(tree)
        if where is not None or out_of_range:
            place = where or "the record"
            text = f"{place} holds a number that is not finite; expected finite numbers"
            part = partial_of(tree, Limits()) if isinstance(tree, dict) else Partial()
            return RejectCode.NON_FINITE, text, part
    if not value.strip():
        return RejectCode.NOT_JSON, "the record is empty; expected a JSON object", Partial()
    if value.startswith(b"\xef\xbb\xbf"):
        text = "the record starts with a byte-order mark; expected a JSON object"
        return RejectCode.NOT_JSON, text, Partial()
    reason = complaint.removeprefix("JSON is malformed: ")[:80]
    return RejectCode.NOT_JSON, f"the record is not valid JSON: {reason}", Partial()


def _non_finite(value: Any, where: str = "") -> str | None:
    """Path of the first number that is not finite. ``value`` is at most ``max_depth`` deep."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return None if _is_finite(value) else where
    if isinstance(value, list):
        items: Iterator[tuple[str, Any]] = ((f"{where}[{i}]", v) for i, v in enumerate(value))
    elif isinstance(value, dict):
        items = ((f"{where}.{shown(k)[1:-1]}".lstrip("."), v) for k, v in value.items())
    else:
        return None
    return next((path for name, item in items if (path := _non_finite(item, name))), None)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _kind(value: Any) -> str:
    """A decoded value's JSON type, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a text", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return names.get(type(value), "something else")


def _findings(tree: dict[str, Any], limits: Limits) -> Iterator[Finding]:
    """What is wrong with the fields of an object, in the order of the wire contract."""
    for name in REQUIRED:
        if tree.get(name) is None:
            state = "null" if name in tree else "missing"
            yield RejectCode.MISSING_FIELD, f"{name} is {state}; expected {EXPECTED[name]}"
        elif (found := CHECKS[name](tree[name], limits)) is not None:
            yield found
    for name in ("subject", "prediction", "gradient", "weight"):
        if tree.get(name) is not None and (found := CHECKS[name](tree[name], limits)) is not None:
            yield found


EXPECTED = {
    "id": "a text",
    "ts": "Unix seconds or an RFC 3339 text with a time zone",
    "source": "a text",
    "label": "a text, a whole number or a boolean",
    "features": "an array of numbers or an object with named values",
    "subject": "a text",
    "prediction": "a number, an array of numbers, or an object with a number for each label",
    "gradient": "an array of numbers",
    "weight": "a number above 0",
}


def _wrong(name: str, value: Any) -> Finding:
    text = f"{name} is {_kind(value)}, {shown(value)}; expected {EXPECTED.get(name, 'a number')}"
    return RejectCode.WRONG_TYPE, text


def _too_long(name: str, value: str, most: int, code: RejectCode) -> Finding | None:
    if len(value) <= most:
        return None
    return code, f"{name} has {len(value)} characters; at most {most} are allowed"


def _check_id(value: Any, limits: Limits) -> Finding | None:
    if not isinstance(value, str):
        return _wrong("id", value)
    if not value:
        return RejectCode.MISSING_FIELD, "id is empty; expected a text of at least one character"
    return _too_long("id", value, limits.max_id_chars, RejectCode.ID_TOO_LONG)


def _check_source(value: Any, limits: Limits) -> Finding | None:
    if not isinstance(value, str):
        return _wrong("source", value)
    if not value:
        text = "source is empty; expected a text of at least one character"
        return RejectCode.MISSING_FIELD, text
    return _too_long("source", value, limits.max_source_chars, RejectCode.SOURCE_TOO_LONG)


def time_fault(limits: Limits, value: Any) -> Finding:
    """The finding for a time stamp outside the bounds."""
    first, last = limits.min_ts_seconds, limits.max_ts_seconds
    text = f"ts is {shown(value)}; expected Unix seconds from {first:.0f} to {last:.0f}"
    hint = " (it looks like milliseconds)" if _looks_like_millis(value, limits) else ""
    return RejectCode.TIMESTAMP_OUT_OF_RANGE, text + hint


def _looks_like_millis(value: Any, limits: Limits) -> bool:
    number = isinstance(value, int | float)
    return number and limits.max_ts_seconds < value <= 1000 * limits.max_ts_seconds


def _check_ts(value: Any, limits: Limits) -> Finding | None:
    if isinstance(value, str):
        try:
            when = msgspec.convert(value, datetime)
        except msgspec.ValidationError:
            return _wrong("ts", value)
        if when.tzinfo is None:
            text = f"ts is {shown(value)} without a time zone; add Z or an offset such as +01:00"
            return RejectCode.WRONG_TYPE, text
        inside = limits.min_ts_seconds <= when.timestamp() <= limits.max_ts_seconds
        return None if inside else time_fault(limits, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _wrong("ts", value)
    inside = limits.min_ts_seconds <= value <= limits.max_ts_seconds
    return None if inside else time_fault(limits, value)


def _check_label(value: Any, limits: Limits) -> Finding | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not value:
            return RejectCode.OUT_OF_RANGE, "label is empty; expected at least one character"
        return _too_long("label", value, MAX_LABEL_CHARS, RejectCode.OUT_OF_RANGE)
    if not isinstance(value, int):
        return _wrong("label", value)
    if -INT64_MAX - 1 <= value <= INT64_MAX:
        return None
    return RejectCode.OUT_OF_RANGE, "label is a whole number beyond 64 bits; expected a smaller one"


def _check_number(name: str, value: Any) -> Finding | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _wrong(name, value)
    if not _is_finite(value):
        text = f"{name} holds a number that is not finite; expected finite numbers"
        return RejectCode.NON_FINITE, text
    return None


def _check_numbers(name: str, value: list[Any]) -> Finding | None:
    found = (_check_number(f"{name}[{i}]", item) for i, item in enumerate(value))
    return next((finding for finding in found if finding is not None), None)


def _check_features(value: Any, limits: Limits) -> Finding | None:
    if not isinstance(value, list | dict):
        return _wrong("features", value)
    if not value:
        return RejectCode.WRONG_DIMENSION, "features is empty; expected at least one value"
    if len(value) > limits.max_features:
        text = f"features has {len(value)} values; at most {limits.max_features} are allowed"
        return RejectCode.TOO_MANY_FEATURES, text
    if isinstance(value, list):
        return _check_numbers("features", value)
    found = (_check_named(name, item) for name, item in value.items())
    return next((finding for finding in found if finding is not None), None)


def _check_named(name: str, item: Any) -> Finding | None:
    if isinstance(item, list | dict):
        expected = "a number, a text, a boolean or null"
        text = f"features.{shown(name)} is {_kind(item)}; expected {expected}"
        return RejectCode.WRONG_TYPE, text
    if item is None or isinstance(item, str | bool):
        return None
    return _check_number(f"features.{shown(name)}", item)


def _check_subject(value: Any, limits: Limits) -> Finding | None:
    if not isinstance(value, str):
        return _wrong("subject", value)
    return _too_long("subject", value, limits.max_subject_chars, RejectCode.OUT_OF_RANGE)


def _check_prediction(value: Any, limits: Limits) -> Finding | None:
    if isinstance(value, list | dict):
        if len(value) > limits.max_features:
            text = f"prediction has {len(value)} values; at most {limits.max_features} are allowed"
            return RejectCode.OUT_OF_RANGE, text
        if isinstance(value, list):
            return _check_numbers("prediction", value)
        found = (_check_number(f"prediction.{shown(k)}", v) for k, v in value.items())
        return next((finding for finding in found if finding is not None), None)
    return _check_number("prediction", value)


def _check_gradient(value: Any, limits: Limits) -> Finding | None:
    if not isinstance(value, list):
        return _wrong("gradient", value)
    if not 1 <= len(value) <= limits.max_features:
        text = f"gradient has {len(value)} numbers; expected 1 to {limits.max_features}"
        return RejectCode.WRONG_DIMENSION, text
    return _check_numbers("gradient", value)


def _check_weight(value: Any, limits: Limits) -> Finding | None:
    found = _check_number("weight", value)
    if found is None and value <= 0:
        return RejectCode.OUT_OF_RANGE, f"weight is {shown(value)}; expected a number above 0"
    return found


CHECKS: dict[str, Check] = {
    "id": _check_id,
    "ts": _check_ts,
    "source": _check_source,
    "label": _check_label,
    "features": _check_features,
    "subject": _check_subject,
    "prediction": _check_prediction,
    "gradient": _check_gradient,
    "weight": _check_weight,
}


def partial_of(tree: dict[str, Any], limits: Limits) -> Partial:
    """The fields of an invalid event that have the right type, texts cut to their bounds."""

    def text(name: str, most: int) -> str | None:
        value = tree.get(name)
        if not isinstance(value, str) or not value:
            return None
        return clean(value if len(value) <= most else value[: most - 1] + "…")

    ts, label = tree.get("ts"), tree.get("label")
    if isinstance(ts, str):
        ts = text("ts", 64)
    elif isinstance(ts, bool) or not isinstance(ts, int | float) or abs(ts) > 2**63:
        ts = None
    if isinstance(label, str):
        label = text("label", MAX_LABEL_CHARS)
    elif not isinstance(label, int) or abs(label) > INT64_MAX:
        label = None
    most = limits.max_id_chars, limits.max_source_chars
    return Partial(text("id", most[0]), ts, text("source", most[1]), label)
