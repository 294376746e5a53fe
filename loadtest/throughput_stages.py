"""Where the gate's processor time goes."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import monitor.decide.apply as apply_module
import monitor.gate as gate_module
from loadtest.throughput_bench import Bench, timed
from monitor.core.decode import Decoder
from monitor.detectors import default_detectors
from monitor.detectors.calibration import Reference
from monitor.gate import Gate


class StageClock:
    """Adds up where the gate's processor time goes, by wrapping its parts for one pass."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, its time added to ``name``."""
        self.seconds.setdefault(name, 0.0)

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - began

        return measured


class TimedDetector:
    """A detector whose methods are measured; everything else is the detector's own."""

    def __init__(self, detector: Any, clock: StageClock) -> None:
        self._detector = detector
        for method in ("score", "observe", "explain"):
            wrapped = clock.wrap(f"{detector.name}: {method}", getattr(detector, method))
            setattr(self, method, wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)


@contextlib.contextmanager
def replaced(target: Any, name: str, clock: StageClock, stage: str) -> Iterator[None]:
    """Within this, ``target``'s ``name`` is measured as ``stage``."""
    original = getattr(target, name)
    setattr(target, name, clock.wrap(stage, original))
    try:
        yield
    finally:
        setattr(target, name, original)


def stages(bench: Bench) -> dict[str, float]:
    """Processor time by stage, in microseconds an event, from one pass of their own."""
    clock = StageClock()
    with contextlib.ExitStack() as stack:
        for target, name, stage in (
            (Decoder, "parse", "decode: parse"),
            (Decoder, "columns", "decode: columns"),
            (Reference, "read", "calibration: p-value"),
            (Reference, "admit", "calibration: learn"),
            (apply_module, "combine", "combine channels"),
            (gate_module, "grouped", "incidents"),
            (gate_module, "encode_decisions", "encode decisions"),
        ):
            stack.enter_context(replaced(target, name, clock, stage))
        detectors: Sequence[Any] = [TimedDetector(d, clock) for d in default_detectors()]
        turn = timed(bench.judge(Gate(detectors=detectors)))
    clock.seconds["the rest"] = turn.cpu - sum(clock.seconds.values())
    scale = 1e6 / turn.events
    ranked = sorted(clock.seconds.items(), key=lambda item: -item[1])
    return {name: seconds * scale for name, seconds in ranked if seconds > 0.0}
