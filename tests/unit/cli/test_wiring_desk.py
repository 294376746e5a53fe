"""Policy and quarantine together, as ``run`` wires them: what is confirmed counts from then on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.cli import wiring, wiring_desk
from monitor.config.settings import Settings, load_settings, with_policy
from monitor.core.desk import HeldFilter
from monitor.core.errors import MonitorError
from tests.unit.cli.test_cli_app import event, write


def settings(tmp_path: Path) -> Settings:
    source = write(tmp_path / "in.jsonl", [event(i) for i in range(600)])
    options: dict[str, Any] = {
        "transport": "local",
        "local.from": str(source),
        "local.to": str(tmp_path / "to.jsonl"),
        "local.out_dir": str(tmp_path / "out"),
        "batch.linger_milliseconds": 20,
    }
    loaded = load_settings(environ={}, options=options)
    return with_policy(loaded, None, {"deny": [{"source": "s3", "why": "stolen"}]})


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_confirmed_counts_against_its_source(tmp_path: Path) -> None:
    made = settings(tmp_path)
    status = wiring.make_status()
    metrics = wiring.make_metrics(made, status, live=False)
    gate = wiring.make_gate(made, local=True, meter=metrics.meter)
    transport = wiring.run_transport(made)
    manned = wiring_desk.make_manned(made, gate, transport, status=status, metrics=metrics)
    control, quarantine = manned.control, manned.quarantine
    assert quarantine is not None
    stop = threading.Event()
    thread = threading.Thread(target=lambda: manned.service.run(stop))
    thread.start()
    try:
        wait(lambda: status.snapshot()["events"] == 600)
        held = HeldFilter(source="s3")
        wait(lambda: quarantine.search(held).total > 40)
        assert quarantine.observed().promised == control.in_force.quarantine_at
        keys = tuple(item.key for item in quarantine.search(held).items[:2])
        outcome = quarantine.confirm(HeldFilter(keys=keys), who="ana", why="stolen account")
        assert len(outcome.done) == 2
        # Nothing was released: by these two reviews all that is held is poison.
        told_of = metrics.expose()[0].decode().splitlines()
        assert (
            'poisoning_monitor_observed_false_positive_share{threshold="quarantine"} 0.0' in told_of
        )
        assert 'poisoning_monitor_observed_reviewed_events{threshold="quarantine"} 2.0' in told_of
        spent = {line.split()[0]: float(line.split()[1]) for line in told_of if line[:1] != "#"}
        for detector in gate.detectors:
            assert (
                spent[f'poisoning_monitor_detector_seconds_total{{detector="{detector.name}"}}'] > 0
            )
        now = control.current()
        assert (now.version, now.kind, now.who) == (2, "review", "ana")
        assert now.policy["confirmed"] == {"s3": 2}
        told = [(entry.who, entry.what) for entry in quarantine.audit()]
        assert ("ana", "policy review") in told and ("monitor", "policy start") in told
        wait(lambda: status.snapshot()["policy_version"] == 2)
        with pytest.raises(MonitorError):
            control.propose({**now.policy, "flag_at": 2.0}, base=2, who="ana", why="")
    finally:
        stop.set()
        thread.join(20)
        manned.close()
