"""A pause for whoever keeps failing to log in."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

MOST_ADDRESSES = 4096
MOST_NOTES = 100


@dataclass(slots=True)
class _Failures:
    since: float
    count: int = 0
    locked_until: float = 0.0


class Lockout:
    """Counts failed logins by address. Thread-safe, bounded memory.

    Parameters
    ----------
    failures
        So many within ``seconds`` shut an address out,
    seconds
        for as long.
    clock
        Monotonic seconds.
    """

    def __init__(
        self, failures: int = 10, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Failures] = OrderedDict()
        self._notes = _Failures(clock())

    def wait_seconds(self, address: str) -> float:
        """How long ``address`` has to wait before it may try again; 0 when it may."""
        with self._lock:
            known = self._known.get(network_of(address))
            return 0.0 if known is None else max(0.0, known.locked_until - self._clock())

    def failed(self, address: str) -> bool:
        """Count a failure; True when this one shuts the address out."""
        place = network_of(address)
        with self._lock:
            now = self._clock()
            known = self._known.pop(place, None)
            if known is None or now - known.since >= self._seconds:
                known = _Failures(now)
            known.count += 1
            self._known[place] = known
            if len(self._known) > MOST_ADDRESSES:
                self._known.popitem(last=False)
            if known.count < self._most:
                return False
            known.locked_until = now + self._seconds
            known.count, known.since = 0, now
            return True

    def succeeded(self, address: str) -> None:
        """Forget the failures of ``address``."""
        with self._lock:
            self._known.pop(network_of(address), None)

    def worth_a_note(self) -> bool:
        """Whether one more failure may be written down: many addresses must not fill the trail."""
        with self._lock:
            now = self._clock()
            if now - self._notes.since >= self._seconds:
                self._notes = _Failures(now)
            self._notes.count += 1
            return self._notes.count <= MOST_NOTES


def network_of(address: str) -> str:
    """An address, or the /64 of an IPv6 address: whoever has one has them all.

    Examples
    --------
    >>> network_of("192.0.2.7"), network_of("2001:db8::1:2:3:4")
    ('192.0.2.7', '2001:db8::/64')
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, 64), strict=False))
