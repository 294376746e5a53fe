"""What became of an event's signature. Bounded: metrics and reasons use these words."""

from __future__ import annotations

from enum import IntEnum

DETECTOR = "provenance"
"""The name in a refusal's reason."""


class Outcome(IntEnum):
    """Of one record. Those from :attr:`SIGNATURE_MISSING` on are refused.

    Each refusal has a :class:`~monitor.core.errors.RejectCode` of the same name.
    """

    NOT_AN_EVENT = 0
    """Invalid for another reason; its signature was not looked at."""
    UNSIGNED = 1
    """Has no signature, and needs none."""
    VERIFIED = 2
    SIGNATURE_MISSING = 3
    SIGNATURE_MALFORMED = 4
    SIGNATURE_FORBIDDEN = 5
    KEY_UNKNOWN = 6
    KEY_UNAVAILABLE = 7
    KEY_NOT_YET_VALID = 8
    KEY_EXPIRED = 9
    KEY_REVOKED = 10
    KEY_NOT_ALLOWED = 11
    SIGNATURE_BAD = 12
    SIGNED_OUTSIDE_WINDOW = 13

    @property
    def word(self) -> str:
        """The name used in metrics."""
        return self.name.lower()

    @property
    def is_refusal(self) -> bool:
        """Whether such an event is refused."""
        return self >= Outcome.SIGNATURE_MISSING
