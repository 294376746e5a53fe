"""The gate service on a real broker beside what its Kafka client costs alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.progress import Progress, TaskID

from loadtest.passing import client_of
from loadtest.speed_kafka import Input, Place, broker, rates, running, service, watch
from loadtest.throughput_load import Workload, make_workload
from monitor.config.settings import load_settings
from monitor.core.types import RawBatch
from monitor.gate import Gate

MOST_REPEATS = 3
SAMPLE = 2_048


def decision_bytes(load: Workload) -> int:
    """Median length of what the gate says about an event."""
    gate = Gate()
    gate.check(RawBatch.of(load.values[:SAMPLE]))
    said = gate.check(RawBatch.of(load.values[SAMPLE : 2 * SAMPLE], start=SAMPLE))
    return int(np.median([len(record) for record in said.records]))


def passing(place: Place, size: int, more: dict[str, Any]) -> Any:
    """The command of the client alone."""

    def command(folder: Path) -> list[str]:
        config = folder / "passing.yaml"
        config.write_text(yaml.safe_dump(place.settings("passing", more)))
        said = ["--config", str(config), "--decision-bytes", str(size)]
        return [sys.executable, "-m", "loadtest.passing", *said]

    return command


def end_to_end(given: argparse.Namespace, progress: Progress) -> list[dict[str, Any]]:
    """The figures, one entry for each number of features."""
    found = []
    with broker() as (address, pid):
        for features in given.features:
            task = progress.add_task(f"{features} features: making events", total=None)
            load = make_workload(given.events, features, given.labels, prime=given.prime)
            progress.remove_task(task)
            found.append(_one_width(given, load, (address, pid), progress))
    return found


def _one_width(
    given: argparse.Namespace, load: Workload, where: tuple[str, int | None], progress: Progress
) -> dict[str, Any]:
    size, features = decision_bytes(load), load.x.shape[1]
    turns: dict[str, list[dict[str, Any]]] = {"service": [], "client": []}
    repeats = min(given.repeats, MOST_REPEATS)
    total = 2 * repeats * len(load.values)
    task = progress.add_task(f"{features} features, end to end", total=total)
    more = {"batch": {"max_events": given.batch}}
    for repeat in range(repeats):
        for name in ("service", "client") if repeat % 2 == 0 else ("client", "service"):
            place = Place(where[0], 1, given.client, where[1])
            command = service(place, "s", more) if name == "service" else passing(place, size, more)
            turns[name].append(_turn(place, load, command, (progress, task)))
    pairs = list(zip(turns["service"], turns["client"], strict=True))
    return {
        "features": features,
        "kafka_client": client_named(given.client),
        "decision_bytes": size,
        "bytes_each": load.bytes_each,
        "service": medians(turns["service"]),
        "client": medians(turns["client"]),
        "ratio": float(np.median([c["cpu_us"] / s["cpu_us"] for s, c in pairs])),
        "ratio_wall": float(
            np.median([s["events_per_second"] / c["events_per_second"] for s, c in pairs])
        ),
        "turns": turns,
    }


def client_named(given: str | None) -> str:
    """The client that is measured: that of the settings where none was asked for."""
    return given or client_of(load_settings(None))


def _turn(
    place: Place, load: Workload, command: Any, bar: tuple[Progress, TaskID]
) -> dict[str, Any]:
    progress, task = bar
    place.create()
    prepared = Input(place, load.values)
    done = progress.tasks[progress.task_ids.index(task)].completed
    with running([command]) as processes:
        prepared.show()
        samples = watch(
            *(place, processes, len(load.values)),
            lambda events: progress.update(task, completed=done + events),
        )
    return rates(samples, load.prime, broker=place.broker_pid is not None)


def medians(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure over turns; None where a turn has none."""
    keys = ("events_per_second", "events_per_cpu_second", "cpu_us", "broker_cpu_us")
    return {
        key: None if turns[0][key] is None else float(np.median([turn[key] for turn in turns]))
        for key in keys
    }
