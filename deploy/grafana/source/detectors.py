"""Detector internals: do they run, what do they cost, what do they find, do drills still work."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from deploy.grafana.source import parts
from deploy.grafana.source.frame import frame
from deploy.grafana.source.parts import VALID, bars, metric, now, number, query, rate, series

UID = "poisoning-monitor-detectors"
SECONDS = "detector_seconds_total"


def _state(board: build.Dashboard) -> build.Dashboard:
    return (
        board.with_panel(
            number(
                "Failed micro-batches",
                "On which some detector failed, in the shown time. Any is worth a look: the "
                "decisions' reasons name the error.",
                "short",
                now(f"sum(increase({metric('detector_errors_total')}[$__range])) or vector(0)"),
                steps=((1.0, "red"),),
                width=6,
            ).decimals(0)
        )
        .with_panel(
            number(
                "Detectors' time for an event",
                "All detectors together: scoring, learning, explaining.",
                "s",
                query(
                    parts.share(rate(SECONDS, over="5m"), rate("events_total", VALID, over="5m"))
                ),
                width=6,
                line=True,
            )
        )
        .with_panel(
            number(
                "Decided in the warm-up",
                "Share of valid events that were decided by the warm-up setting, before the schema "
                "was learned. 0 except after a first start.",
                "percentunit",
                now(
                    parts.share(
                        rate("warmup_events_total", over="5m"),
                        rate("events_total", VALID, over="5m"),
                    )
                ),
                steps=((0.000001, "orange"),),
                width=6,
                empty="no events",
            ).decimals(1)
        )
        .with_panel(
            number(
                "Partitions that could not be used",
                "Other partitions whose knowledge does not fit; the log says why. Some right after "
                "a first start are ordinary.",
                "none",
                now(f"sum({metric('view_apart')})"),
                steps=((1.0, "orange"),),
                width=6,
                empty="one partition",
            )
        )
    )


def _work(board: build.Dashboard) -> build.Dashboard:
    evidence = series(
        "Evidence by detector",
        "Pieces of evidence in decisions. One that is silent for weeks on a stream with attacks in "
        "its drills is not worth its time there.",
        "cps",
        [query(f"{rate('evidence_total', by='detector')} > 0", "{{detector}}")],
        stack=True,
    )
    families = series(
        "Suspicious share by family",
        "Events whose strongest channel was this one, of the valid events. On honest traffic each "
        "stays near its part of the budget.",
        "percentunit",
        [
            query(
                f"{rate('flagged_total', by='family')} / ignoring (family) group_left () "
                f"({rate('events_total', VALID)} > 0)",
                "{{family}}",
            )
        ],
        log=True,
    )
    errors = series(
        "Failed micro-batches by detector",
        "By gate.on_detector_error their events passed flagged, were held, or the process ended.",
        "cps",
        [query(rate("detector_errors_total", by="detector"), "{{detector}}")],
    )
    learned = series(
        "What baselines may learn from",
        "Accepted events, of the valid ones. Detectors learn from these alone: a fall means that "
        "baselines age while an attack, or a threshold that is too tight, lasts.",
        "percentunit",
        [
            query(
                parts.share(rate("events_total", 'verdict="accept"'), rate("events_total", VALID)),
                "accepted",
            )
        ],
    )
    return board.with_panel(evidence).with_panel(families).with_panel(errors).with_panel(learned)


def _cost(board: build.Dashboard) -> build.Dashboard:
    per_event = (
        f"{rate(SECONDS, by='detector')} / ignoring (detector) group_left () "
        f"({rate('events_total', VALID)} > 0)"
    )
    now_each = (
        f"sort_desc({rate(SECONDS, by='detector', over='5m')} / ignoring (detector) group_left () "
        f"({rate(SECONDS, over='5m')} > 0))"
    )
    return board.with_panel(
        series(
            "Time for an event, by detector",
            "Mean over the valid events.",
            "s",
            [query(per_event, "{{detector}}")],
            stack=True,
        )
    ).with_panel(
        bars(
            "Share of the detectors' time",
            "Which detector the time goes to, over 5 minutes.",
            "percentunit",
            now(now_each, "{{detector}}"),
        )
    )


def _drills(board: build.Dashboard) -> build.Dashboard:
    recall = series(
        "Drills: recall by family",
        "Marked canaries that were caught, of those injected. Canaries never reach the learner. A "
        "fall says that this family would get through today.",
        "percentunit",
        [query(f"min by (family) ({metric('drill_recall')})", "{{family}}")],
        width=8,
    ).max(1)
    delay = series(
        "Drills: events until the first catch",
        "How many canaries came before the first of them was caught.",
        "short",
        [query(f"max by (family) ({metric('drill_delay_events')})", "{{family}}")],
        width=8,
    )
    canaries = series(
        "Drills: canaries by outcome",
        "None for weeks means that the drill does not run.",
        "cps",
        [query(rate("drill_canaries_total", by="outcome"), "{{outcome}}")],
        width=8,
    )
    return (
        board.with_panel(recall)
        .with_panel(delay)
        .with_panel(parts.coloured(canaries, {"caught": "green", "missed": "red"}))
    )


def dashboard() -> build.Dashboard:
    """The whole dashboard."""
    board = frame(
        UID, "Do the detectors run, what do they cost, what do they find?", since="now-6h"
    )
    board = _state(board.with_row(build.Row("State")))
    board = _work(board.with_row(build.Row("What they find")))
    board = _cost(board.with_row(build.Row("What they cost")))
    return _drills(board.with_row(build.Row("Drills")))
