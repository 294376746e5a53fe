"""How the scripts of the compose file are told to end."""

from __future__ import annotations

import signal


class Stop:
    """Whether SIGTERM or Ctrl-C came; what is under way is finished first."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True
