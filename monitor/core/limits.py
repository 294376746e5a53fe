"""Bounds on a single event. What goes over them is an invalid event, never a crash."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_SECONDS = 9_000_000_000.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Safe bounds on one event; every one is a setting.

    Attributes
    ----------
    max_message_bytes
        Longest record, checked before anything is decoded.
    max_features, max_labels
        Most features of one event, and most distinct labels known at a time.
    max_depth
        Deepest nesting of objects and arrays in a record, ``meta`` included; the event
        itself is 1, ``features`` is 2.
    max_id_chars, max_source_chars, max_subject_chars
        Longest texts, in Unicode characters.
    max_categories
        One-hot columns for each categorical feature; rarer values share one further column.
    min_ts_seconds, max_ts_seconds
        Accepted time stamps, Unix seconds, both ends included.

    Examples
    --------
    >>> Limits(max_features=64).max_depth
    8
    >>> Limits(max_ts_seconds=1e12)
    Traceback (most recent call last):
    ...
    ValueError: time limits must lie within ±9000000000 seconds, the smaller one first
    """

    max_message_bytes: int = 1 << 20
    max_features: int = 4096
    max_labels: int = 1024
    max_depth: int = 8
    max_id_chars: int = 128
    max_source_chars: int = 256
    max_subject_chars: int = 256
    max_categories: int = 8
    min_ts_seconds: float = 0.0
    max_ts_seconds: float = 4_102_444_800.0

    def __post_init__(self) -> None:
        # Time is kept as int64 nanoseconds, which end in the year 2262.
        if not -LARGEST_SECONDS <= self.min_ts_seconds <= self.max_ts_seconds <= LARGEST_SECONDS:
            raise ValueError(
                f"time limits must lie within ±{LARGEST_SECONDS:.0f} seconds, the smaller one first"
            )
