"""What a gate is told at its start, and what it may be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from monitor.core.errors import UsageError
from monitor.core.limits import Limits
from monitor.core.schema import SchemaSpec
from monitor.decide.guard import OnError


@dataclass(frozen=True, slots=True)
class GateConfig:
    """What is fixed at start.

    ``warmup`` says what becomes of the events the schema is learned from (``warmup_events`` of
    them): their verdict is accept or, for ``hold``, quarantine; what is done follows the mode, as
    with every verdict; :mod:`monitor.decide.warmup` says which of them are checked all the same.
    ``warmup_max_bytes`` bounds what is kept of them until then. ``schema`` gives names and kinds
    instead of learning them, and holds from the first event on; ``local`` numbers lines instead
    of offsets in decisions. ``on_detector_error`` says what becomes of a batch that a detector
    fails on, see :mod:`monitor.decide.guard`. With ``several`` partitions the warm-up events are
    kept while the state is young, since it may have to learn them again
    (:mod:`monitor.state.view`). ``secrets`` gives the secret of a name that a key of the policy
    refers to; it is asked when a policy comes into force, never while a batch is judged.
    """

    limits: Limits = field(default_factory=Limits)
    hash_seed: int = 0
    warmup: Literal["accept", "hold"] = "accept"
    warmup_events: int = 512
    warmup_max_bytes: int = 1 << 24
    schema: SchemaSpec | None = None
    local: bool = False
    on_detector_error: OnError = "flag"
    several: bool = False
    secrets: Callable[[str], bytes | None] = field(default=lambda name: None, repr=False)


def given(batch: Sequence[bytes | str | Mapping[str, Any]]) -> list[bytes]:
    """Events as JSON bytes, JSON text or mappings, all as bytes. Raises UsageError."""
    if isinstance(batch, bytes | str | Mapping):
        raise UsageError("check() takes a sequence of events; wrap a single one in a list")
    return [
        bytes(item)
        if isinstance(item, bytes | bytearray | memoryview)
        else item.encode("utf-8", "surrogatepass")
        if isinstance(item, str)
        else orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY)
        for item in batch
    ]
