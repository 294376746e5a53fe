"""Service health: is the loop alive and ready, does it keep up, what does the process use."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.common import BigValueTextMode

from deploy.grafana.source import parts
from deploy.grafana.source.frame import frame
from deploy.grafana.source.parts import (
    WHERE,
    heat,
    metric,
    now,
    number,
    quantiles,
    query,
    rate,
    series,
)

UID = "poisoning-monitor-service"


def _process(name: str) -> str:
    return f"process_{name}{{{WHERE}}}"


def _state(board: build.Dashboard) -> build.Dashboard:
    return (
        board.with_panel(
            number(
                "Scraped",
                "Replicas that Prometheus reaches.",
                "none",
                now(f"sum(up{{{WHERE}}})"),
                steps=((1.0, "green"),),
                base="red",
            )
        )
        .with_panel(
            number(
                "Ready",
                "Replicas with partitions assigned and state restored.",
                "none",
                now(f"sum({metric('ready')})"),
                steps=((1.0, "green"),),
                base="red",
            )
        )
        .with_panel(
            number(
                "Partitions judged",
                "Assigned and restored, over all replicas. Fewer than the input topic has: some "
                "events wait.",
                "none",
                now(f"sum({metric('partitions')})"),
                steps=((1.0, "green"),),
                base="red",
            )
        )
        .with_panel(
            number(
                "Loop last moved",
                "Of the replica that has stood still longest. An empty poll counts as moving; "
                "liveness probes fail when it does not.",
                "s",
                now(f"max({metric('idle_seconds')})"),
                steps=((30.0, "orange"), (120.0, "red")),
            ).decimals(1)
        )
        .with_panel(
            number(
                "Last commit",
                "Age of the youngest commit. Old beside waiting events: commits fail.",
                "s",
                now(f"time() - max({metric('last_commit_timestamp_seconds')})"),
            ).decimals(1)
        )
        .with_panel(
            number(
                "Version",
                "More than one during a rolling update.",
                "none",
                now(f"count by (version) ({metric('build_info')})", "{{version}}"),
                text=BigValueTextMode.NAME,
            )
        )
    )


def _pace(board: build.Dashboard) -> build.Dashboard:
    lag = series(
        "Waiting events",
        "Lag of each replica's partitions. Steady is harmless, growing is not.",
        "short",
        [query(metric("lag_events"), "{{instance}}")],
        width=8,
    )
    busy = series(
        "What the loop does",
        "Share of its time by stage, over all replicas. poll is waiting for input: when it nears "
        "0 the loop is at its limit.",
        "percentunit",
        [query(rate("stage_seconds_total", by="stage"), "{{stage}}")],
        stack=True,
        width=8,
    )
    batches = series(
        "Events in a micro-batch",
        "Small ones at little traffic. Always the largest (batch.max_events) means a backlog.",
        "short",
        quantiles("batch_events", 0.5, 0.95),
        width=8,
    )
    return (
        board.with_panel(lag)
        .with_panel(parts.coloured(busy, {"poll": "light-blue"}))
        .with_panel(batches)
    )


def _delay(board: build.Dashboard) -> build.Dashboard:
    batch = series(
        "Time of a micro-batch",
        "From poll to commit. Exemplars carry the partition and offset of a batch's first event.",
        "s",
        quantiles("batch_seconds", 0.5, 0.95, 0.99, exemplar=True),
        width=8,
    )
    age = series(
        "Age of events at their commit",
        "By the event's own time stamp: what producers and queues add before the gate is in it. "
        "The newest event of each micro-batch.",
        "s",
        quantiles("event_age_seconds", 0.5, 0.95),
        width=8,
    )
    return (
        board.with_panel(
            heat(
                "From the record to its commit",
                "Every event, by its transport time stamp. Exemplars: a micro-batch's slowest.",
                "event_latency_seconds",
                width=8,
            )
        )
        .with_panel(batch)
        .with_panel(age)
    )


def _recovery(board: build.Dashboard) -> build.Dashboard:
    size = series(
        "Stored state",
        "Latest snapshots of the partitions of each replica.",
        "bytes",
        [query(metric("state_bytes"), "{{instance}}")],
        width=8,
    )
    restore = series(
        "Last restore took",
        "Bringing a partition's state back after a start or a rebalance. While it lasts its "
        "events wait.",
        "s",
        [query(metric("restore_last_seconds"), "{{instance}}")],
        width=8,
    )
    snapshots = series(
        "Snapshots, and knowledge from other partitions",
        "Snapshots a minute; and of how many other partitions the judging here knows.",
        "none",
        [
            query(f"60 * {rate('snapshots_total')}", "snapshots a minute"),
            query(f"sum({metric('view_others')})", "other partitions known"),
        ],
        width=8,
    )
    return board.with_panel(size).with_panel(restore).with_panel(snapshots)


def _lineage(board: build.Dashboard) -> build.Dashboard:
    lag = series(
        "Accepted events not in the index yet",
        "The index of the blast radius waits while the gate is busy. It grows without end where "
        "its database is down.",
        "short",
        [query(metric("accepted_index_lag_events"), "{{instance}}")],
        width=8,
    )
    size = series(
        "Index of accepted events",
        "Bounded by blast.keep_bytes and blast.keep_days; the oldest events go first.",
        "bytes",
        [query(metric("accepted_index_bytes"), "{{instance}}")],
        width=8,
    )
    events = number(
        "Accepted events that can be looked up",
        "In the fullest index.",
        "short",
        now(f"max({metric('accepted_index_events')})"),
        width=4,
    )
    taken_back = number(
        "Taken back",
        "Accepted events that the learner was told to take back.",
        "short",
        now(f"max({metric('retractions_total')})"),
        width=4,
    )
    return board.with_panel(lag).with_panel(size).with_panel(events).with_panel(taken_back)


def _resources(board: build.Dashboard) -> build.Dashboard:
    cpu = series(
        "Processor",
        "Cores used. The loop itself uses one at most.",
        "none",
        [query(f"rate({_process('cpu_seconds_total')}[{parts.RATE}])", "{{instance}}")],
        width=8,
    )
    memory = series(
        "Memory",
        "Resident. State is bounded by settings; steady growth is worth a report.",
        "bytes",
        [query(_process("resident_memory_bytes"), "{{instance}}")],
        width=8,
    )
    files = series(
        "Open files, of those allowed",
        "Near 1 connections begin to fail.",
        "percentunit",
        [query(f"{_process('open_fds')} / {_process('max_fds')}", "{{instance}}")],
        width=8,
    )
    starts = number(
        "Starts",
        "Starts of processes in the shown time. Exit code 3 (Kafka, disk) and a restart are by "
        "design; many are not.",
        "short",
        now(f"sum(changes({_process('start_time_seconds')}[$__range]))"),
        steps=((3.0, "orange"), (10.0, "red")),
        width=12,
    ).decimals(0)
    scrape = number(
        "Longest scrape",
        "Prometheus gives up after its scrape_timeout.",
        "s",
        now(f"max(scrape_duration_seconds{{{WHERE}}})"),
        steps=((2.0, "orange"), (8.0, "red")),
        width=12,
    )
    return (
        board.with_panel(cpu)
        .with_panel(memory)
        .with_panel(files)
        .with_panel(starts)
        .with_panel(scrape)
    )


def dashboard() -> build.Dashboard:
    """The whole dashboard."""
    board = frame(UID, "Is the loop alive and ready, does it keep up, what does it use?")
    board = _state(board.with_row(build.Row("State")))
    board = _pace(board.with_row(build.Row("Does it keep up")))
    board = _delay(board.with_row(build.Row("Delay")))
    board = _recovery(board.with_row(build.Row("State and recovery")))
    board = _lineage(board.with_row(build.Row("What the learner was given")))
    return _resources(board.with_row(build.Row("Process")))
