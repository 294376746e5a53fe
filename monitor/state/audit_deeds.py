"""What people did with an event: what the reviews say and what the chain says, put together. Pure.

What is read here is a life as :func:`monitor.state.audit_lineage.lineage` gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Said = Mapping[str, Any]
MADE = {"release": "released", "confirm": "confirmed"}
"""The status of a review, by the word for it in the chain of what people do."""


@dataclass(frozen=True, slots=True)
class Done:
    """Something that a person did with an event.

    ``said`` is the review, or the record of the chain where no review tells of it; ``word`` its
    status or verb. ``record`` is that of the chain, None where none is at hand.
    """

    word: str
    said: Said
    is_review: bool
    record: Said | None


def done_with(life: Said) -> Iterator[Done]:
    """Each deed once: the reviews, then what else was done, in the order in which they stand there.

    A review stands in the reviews ledger and, once it was done, in the chain of what people do as
    well: that is one deed, with its record.

    Examples
    --------
    >>> review = {"status": "released", "who": "ana", "why": "A retry", "at": 50.0}
    >>> record = {"what": "release", "who": "ana", "why": "A retry", "chain": "desk", "seq": 3}
    >>> (done,) = done_with({"reviews": [review], "actions": [record]})
    >>> done.word, done.record is record
    ('released', True)
    """
    records = [record for record in said_in(life.get("actions")) if record.get("what")]
    for review in said_in(life.get("reviews")):
        same = next((record for record in records if _is_same(record, review)), None)
        if same is not None:
            records.remove(same)
        yield Done(str(review.get("status")), review, True, same)
    for record in records:
        yield Done(str(record["what"]), record, False, record)


def said_in(value: Any) -> list[Said]:
    """The objects of a list, which may be absent."""
    return [one for one in value or () if isinstance(one, Mapping)]


def _is_same(record: Said, review: Said) -> bool:
    status = MADE.get(str(record["what"]))
    return (status, record.get("who"), record.get("why")) == (
        review.get("status"), review.get("who"), review.get("why")
    )  # fmt: skip
