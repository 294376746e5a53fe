"""Who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do; each may do what those before it may."""

    VIEWER = "viewer"
    """Reads everything, asks what-if."""
    OPERATOR = "operator"
    """Changes the policy, releases and confirms held events."""
    ADMIN = "admin"
    """Erases what is stored of a source, decides which keys may sign."""

    def covers(self, other: Role) -> bool:
        """Whether this role may do what ``other`` may.

        Examples
        --------
        >>> Role.OPERATOR.covers(Role.VIEWER), Role.OPERATOR.covers(Role.ADMIN)
        (True, False)
        """
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Person:
    """Whoever asks.

    Attributes
    ----------
    name
        The token's name, in the history and the audit trail; ``local`` without login.
    role
        What they may do.
    token
        Identifier of the token they came with, None without login.
    until
        Unix seconds at which their session ends; None outside one.
    csrf
        What their session's changes have to bring in ``x-csrf-token``; None outside one.
    session
        Identifier of their session.
    """

    name: str
    role: Role
    token: str | None = None
    until: float | None = None
    csrf: str | None = None
    session: str | None = None


LOCAL = Person("local", Role.ADMIN)
"""Everybody, where there is no login: only this machine's own people reach the interface."""
