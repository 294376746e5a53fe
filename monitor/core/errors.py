"""Every way an input can be refused, and the exceptions a person may see."""

from __future__ import annotations

from enum import IntEnum


class RejectCode(IntEnum):
    """Why a record is invalid. Bounded: new causes are added here, never free text."""

    OK = 0
    NOT_UTF8 = 1
    NOT_JSON = 2
    NOT_AN_OBJECT = 3
    TOO_LARGE = 4
    TOO_DEEP = 5
    MISSING_FIELD = 6
    WRONG_TYPE = 7
    NON_FINITE = 8
    WRONG_DIMENSION = 9
    UNKNOWN_FEATURE = 10
    TOO_MANY_FEATURES = 11
    LABEL_LIMIT = 12
    ID_TOO_LONG = 13
    SOURCE_TOO_LONG = 14
    TIMESTAMP_OUT_OF_RANGE = 15
    OUT_OF_RANGE = 16
    DUPLICATE_NAME = 17
    SIGNATURE_MISSING = 18
    SIGNATURE_MALFORMED = 19
    SIGNATURE_FORBIDDEN = 20
    KEY_UNKNOWN = 21
    KEY_UNAVAILABLE = 22
    KEY_NOT_YET_VALID = 23
    KEY_EXPIRED = 24
    KEY_REVOKED = 25
    KEY_NOT_ALLOWED = 26
    SIGNATURE_BAD = 27
    SIGNED_OUTSIDE_WINDOW = 28

    @property
    def word(self) -> str:
        """The name used on the wire and in metrics."""
        return self.name.lower()


class MonitorError(Exception):
    """Base of all errors that are reported in one line; ``exit_code`` ends the process."""

    exit_code = 1


class UsageError(MonitorError):
    """A bad file, flag or setting: the text says what to do about it."""

    exit_code = 2


class StateError(MonitorError):
    """Stored state that cannot be used: wrong version, damaged, or from another stream."""


class DetectorError(MonitorError):
    """A detector failed and the setting says that the process ends then."""

    exit_code = 4


class TransportError(MonitorError):
    """Input or output failed in a way that a restart may mend."""

    exit_code = 3
