"""What reviews of held events and retractions of accepted ones have in common."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable

from monitor.core.errors import TransportError, UsageError
from monitor.core.held import Reviews
from monitor.core.ports import Reviewer
from monitor.store.ledger_rows import Operation
from monitor.store.rows import short

_ATTEMPTS = 6
_PAUSE_SECONDS = 0.3
_MAX_WHY = 1000


def operation(
    verb: str, who: str, why: str, when: float, *, needed: bool, name: str | None = None
) -> Operation:
    """What somebody does; the reason is ``needed`` unless nothing is done.

    Raises
    ------
    UsageError
        Without a reason, or with one that is too long.
    """
    if needed and not why.strip():
        raise UsageError("Say why: the audit trail keeps it.")
    if len(why) > _MAX_WHY:
        raise UsageError(f"The reason must be shorter than {_MAX_WHY:,} characters.")
    return Operation(name or uuid.uuid4().hex, verb, short(who), why.strip(), when)


def until_done(
    reviewer: Reviewer, sync: Callable[[], None], job: Callable[[], Reviews | None]
) -> None:
    """Have it reviewed, again when somebody came in between; the ledger tells what was done.

    Raises
    ------
    TransportError
        When it cannot be; some of it may have become visible all the same.
    """
    for attempt in range(_ATTEMPTS):
        try:
            reviewer.exclusively(job)
            break
        except TransportError as error:
            if not getattr(error, "retry", False) or attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(random.uniform(0.0, _PAUSE_SECONDS * 2**attempt))
    sync()
