"""The operator's overview: is an attack on, what is done about it, is the gate itself well."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.common import BigValueTextMode

from deploy.grafana.source import parts
from deploy.grafana.source.frame import FAMILY_RUNBOOK, frame
from deploy.grafana.source.parts import (
    HELD,
    SUSPICIOUS,
    VALID,
    metric,
    now,
    number,
    quantiles,
    query,
    rate,
    series,
)

UID = "poisoning-monitor-overview"
NEAR = "5m"
PASSED = f"{SUSPICIOUS},{parts.is_('action', 'pass')}"
# Where the alert PoisoningRateHigh begins: as a ticket when it lasts, and as a page.
EXCESS = ((2.0, "orange"), (6.0, "red"))

REFUSED = 'outcome!~"verified|unsigned|not_an_event"'


def _excess(matcher: str, threshold: str) -> str:
    found = parts.share(
        rate("events_total", matcher, over=NEAR), rate("events_total", VALID, over=NEAR)
    )
    return f"{found} / {parts.promise(threshold)}"


def _status(board: build.Dashboard) -> build.Dashboard:
    return (
        board.with_panel(
            number(
                "Held back, times the promise",
                "Share of valid events in quarantine over 5 minutes, divided by what the policy "
                "promises for honest traffic. Around 1 is ordinary. Above 6: open the incident "
                "drill-down.",
                "none",
                query(_excess(HELD, "quarantine")),
                steps=EXCESS,
                empty="no events",
                line=True,
            ).decimals(1)
        )
        .with_panel(
            number(
                "Flagged or held, times the promise",
                "The same for events flagged or worse, against flag_at.",
                "none",
                now(_excess(SUSPICIOUS, "flag")),
                steps=EXCESS,
                empty="no events",
            ).decimals(1)
        )
        .with_panel(
            number(
                "Reached the learner while suspicious",
                "Flagged or quarantined events that were passed on in the shown time. Flagged ones "
                "always pass; quarantined ones pass in the modes shadow and alert.",
                "short",
                now(f"sum(increase({metric('events_total', PASSED)}[$__range]))"),
            ).decimals(0)
        )
        .with_panel(
            number(
                "Unjudged",
                "Valid events that reached the learner unjudged, because of an overload, in the "
                "shown time. Only overload.mode fail_open lets that happen.",
                "short",
                now(f"sum(increase({metric('unjudged_events_total')}[$__range]))"),
                steps=((1.0, "red"),),
            ).decimals(0)
        )
        .with_panel(
            number(
                "Mode",
                "shadow and alert hold nothing back. More than one for a moment: a change of the "
                "policy is on its way to the replicas.",
                "none",
                now(f"count by (mode) ({metric('policy_mode')} == 1)", "{{mode}}"),
                text=BigValueTextMode.NAME,
                width=2,
            )
        )
        .with_panel(
            number(
                "Policy",
                "Version in force; its history is on the console and in the terminal.",
                "none",
                now(f"max({metric('policy_version')})"),
                width=2,
            ).decimals(0)
        )
        .with_panel(
            number(
                "Not ready",
                "Replicas without their partitions or without restored state. Their partitions' "
                "events wait.",
                "none",
                now(f"count({metric('ready')}) - sum({metric('ready')})"),
                steps=((1.0, "red"),),
                width=2,
                empty="no replica",
            )
        )
        .with_panel(
            number(
                "Waiting",
                "Events that wait in the input. A number that keeps growing means the gate cannot "
                "keep up, and the learner falls behind.",
                "short",
                now(f"sum({metric('lag_events')})"),
                steps=((50_000.0, "orange"), (500_000.0, "red")),
                width=2,
                empty="unknown",
            )
        )
    )


def _suspicion(board: build.Dashboard) -> build.Dashboard:
    valid = rate("events_total", VALID)
    shares = series(
        "Flagged and held back, against the promise",
        "Shares of valid events; dashed is what the policy promises for honest traffic. A lasting "
        "excess is an attack, or a drift. Logarithmic.",
        "percentunit",
        [
            query(parts.share(rate("events_total", HELD), valid), "held back"),
            query(parts.share(rate("events_total", SUSPICIOUS), valid), "flagged or held back"),
            query(parts.promise("quarantine"), "promised for held back"),
            query(parts.promise("flag"), "promised for flagged"),
        ],
        log=True,
    )
    shares = parts.coloured(shares, {"held back": "red", "flagged or held back": "orange"})
    shares = parts.promised(
        shares, {"promised for held back": "dark-red", "promised for flagged": "dark-orange"}
    )
    families = series(
        "Suspicious events by family",
        "Flagged or held back, by the family whose channel spoke loudest. Click a series for its "
        "runbook or for the drill-down.",
        "cps",
        [query(rate("flagged_total", by="family"), "{{family}}")],
        stack=True,
    ).data_links(
        [
            build.DashboardLink("Drill down: ${__field.labels.family}").url(
                "/d/poisoning-monitor-incident?var-family=${__field.labels.family}"
                "&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
                "&${__url_time_range}"
            ),
            build.DashboardLink("Runbook: ${__field.labels.family}")
            .url(FAMILY_RUNBOOK)
            .target_blank(True),
            build.DashboardLink("Held events of this family")
            .url("${console}/quarantine?status=open&family=${__field.labels.family}")
            .target_blank(True),
        ]
    )
    return board.with_panel(shares).with_panel(families)


def _traffic(board: build.Dashboard) -> build.Dashboard:
    verdicts = series(
        "Events by verdict",
        "What the policy concluded, whatever the mode.",
        "cps",
        [query(rate("events_total", by="verdict"), "{{verdict}}")],
        stack=True,
        width=8,
    )
    outputs = series(
        "Records written, by output",
        "What left by which topic or file. `accepted` is what the learner reads.",
        "cps",
        [query(rate("output_records_total", by="output"), "{{output}}")],
        width=8,
    )
    held = parts.share(
        rate("class_events_total", HELD, by="class"), rate("class_events_total", VALID, by="class")
    )
    classes = series(
        "Held back by label (the ten most affected)",
        "Share of each label's events that were held back. One label far above the others: "
        "somebody wants the model to learn, or to forget, that label.",
        "percentunit",
        [query(f"topk(10, {held})", "{{class}}")],
        width=8,
    )
    return (
        board.with_panel(parts.coloured(verdicts, parts.VERDICT_COLOURS))
        .with_panel(
            parts.coloured(outputs, {"accepted": "green", "quarantine": "red", "invalid": "purple"})
        )
        .with_panel(classes)
    )


def _service(board: build.Dashboard) -> build.Dashboard:
    invalid = series(
        "Invalid records and refused signatures, by cause",
        "Records that are no events, or break a limit: dead-lettered with their bytes. A flood of "
        "one code is a broken producer, or somebody who probes the decoder. Behind `signature:` "
        "events refused for theirs, whatever the policy makes of them.",
        "cps",
        [
            query(f"{rate('rejects_total', by='code')} > 0", "{{code}}"),
            query(
                f"{rate('provenance_events_total', REFUSED, by='outcome')} > 0",
                "signature: {{outcome}}",
            ),
        ],
        stack=True,
        width=8,
    )
    latency = series(
        "From the record to its commit",
        "Time from the record's transport time stamp until the learner can read it. Points are "
        "exemplars: the slowest event of a micro-batch, with its partition and offset.",
        "s",
        quantiles("event_latency_seconds", 0.5, 0.99, exemplar=True),
        width=8,
    )
    honest = series(
        "False positives: observed and promised",
        "Of the honest events, as far as people have reviewed what was held back; dashed is the "
        "promise. Observed appears with the first review.",
        "percentunit",
        [
            query(
                f"max by (threshold) ({metric('observed_false_positive_share')})", "{{threshold}}"
            ),
            query(f"max by (threshold) ({metric('policy_share')})", "promised: {{threshold}}"),
        ],
        width=8,
    )
    honest = parts.coloured(honest, {"flag": "orange", "quarantine": "red"})
    honest = parts.promised(
        honest, {"promised: flag": "dark-orange", "promised: quarantine": "dark-red"}
    )
    return board.with_panel(invalid).with_panel(latency).with_panel(honest)


def dashboard() -> build.Dashboard:
    """The whole dashboard."""
    board = frame(UID, "Is an attack on, what is done about it, and is the gate itself well?")
    board = _status(board.with_row(build.Row("Now")))
    board = _suspicion(board.with_row(build.Row("Suspicion")))
    board = _traffic(board.with_row(build.Row("Traffic")))
    return _service(board.with_row(build.Row("Input, delay, and the promise")))
