"""The incident drill-down: what is attacked, by which evidence, what came through, what to do."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import text
from grafana_foundation_sdk.models.text import TextMode

from deploy.grafana.source import parts
from deploy.grafana.source.frame import family_variable, frame
from deploy.grafana.source.parts import (
    HELD,
    SUSPICIOUS,
    VALID,
    bars,
    metric,
    now,
    number,
    query,
    rate,
    series,
)

UID = "poisoning-monitor-incident"
FAMILY = 'family=~"$family"'
OPEN = f"{FAMILY},{parts.is_('state', 'open')}"
AT = parts.is_("threshold", "quarantine")
WINDOWS = ("1m", "5m", "30m", "6h")
STEPS = """\
1. **What is attacked?** Families and labels below; the marks on the curves are policy changes,
   incidents and alerts.
2. **Does it reach the learner?** In mode `enforce` what is quarantined does not; flagged events do.
3. **Who sends it?** Sources are never metrics. Look at the
   [held events](${console}/quarantine?status=open), or `poisoning-monitor quarantine list --family
   FAMILY`; [incidents](${console}/incidents), or `poisoning-monitor incidents list`, have what
   they have in common.
4. **Act:** confirm the ring (`quarantine confirm --source …`), deny a source, or tighten a label by
   an override; ask first: `poisoning-monitor policy whatif …`.
5. **False alarm?** Release, and see whether the promise is kept (bottom right).

The runbooks of all alerts and families: [alerts.md](${runbooks}/alerts.md).
"""


def _burn() -> parts.Panel:
    """How many times faster than promised suspicious events of the families come."""
    panel = bars(
        "Burn rate: times the promised share, by window",
        "Suspicious events of the chosen families as a multiple of flag_at. Short and long windows "
        "both high: it is on now and it is no blip. Short high, long low: it has just begun. Long "
        "high, short low: it is over.",
        "none",
        now(""),
        steps=((2.0, "orange"), (6.0, "red")),
        width=8,
    ).decimals(2)
    targets = []
    for window in WINDOWS:
        found = parts.share(
            rate("flagged_total", FAMILY, over=window), rate("events_total", VALID, over=window)
        )
        targets.append(now(f"{found} / {parts.promise('flag')}", window))
    return panel.targets(targets)


def _what(board: build.Dashboard) -> build.Dashboard:
    counts = f"increase({metric('flagged_total', FAMILY)}[$__range])"
    held = f"increase({metric('flagged_total', FAMILY + ',' + HELD)}[$__range])"
    return (
        board.with_panel(_burn())
        .with_panel(
            number(
                "Suspicious events",
                "Of the chosen families, in the shown time.",
                "short",
                now(f"sum({counts})"),
            )
            .decimals(0)
            .height(9)
        )
        .with_panel(
            number(
                "Of them quarantined",
                "The rest was flagged and passed on.",
                "percentunit",
                now(f"sum({held}) / (sum({counts}) > 0)"),
            )
            .decimals(1)
            .height(9)
        )
        .with_panel(
            text.Panel()
            .title("What to do")
            .mode(TextMode.MARKDOWN)
            .content(STEPS)
            .span(8)
            .height(9)
        )
    )


def _course(board: build.Dashboard) -> build.Dashboard:
    verdicts = series(
        "Suspicious events by family and verdict",
        "Who of the channels spoke loudest, and what followed.",
        "cps",
        [query(rate("flagged_total", FAMILY, by="family, verdict"), "{{family}}: {{verdict}}")],
        stack=True,
    )
    evidence = series(
        "Evidence by detector",
        "Pieces of evidence in decisions, of all families: which detectors see it. An attack that "
        "only one of them sees deserves a closer look at its reasons.",
        "cps",
        [query(f"{rate('evidence_total', by='detector')} > 0", "{{detector}}")],
    )
    suspicious = rate("class_events_total", SUSPICIOUS, by="class")
    labels = series(
        "Suspicious events by label",
        "The ten labels with most of them. Compare with the share below: a large label has more "
        "without being attacked.",
        "cps",
        [query(f"topk(10, {suspicious})", "{{class}}")],
        stack=True,
    )
    ratio = parts.share(suspicious, rate("class_events_total", VALID, by="class"))
    shares = series(
        "Suspicious share of each label",
        "Of the label's valid events, flagged or held back.",
        "percentunit",
        [query(f"topk(10, {ratio})", "{{class}}")],
    )
    return board.with_panel(verdicts).with_panel(evidence).with_panel(labels).with_panel(shares)


def _outcome(board: build.Dashboard) -> build.Dashboard:
    through = series(
        "What happened to suspicious events",
        "hold: kept from the learner. pass: it learned from them. Quarantined and passed means the "
        "mode is shadow or alert.",
        "cps",
        [
            query(
                rate("events_total", SUSPICIOUS, by="verdict, action"),
                "{{verdict}}: {{action}}",
            )
        ],
        stack=True,
        width=8,
    )
    through = parts.coloured(
        through, {"quarantine: hold": "green", "flag: pass": "orange", "quarantine: pass": "red"}
    )
    incidents = series(
        "Open incidents by family",
        "Groups of suspicious events that belong together.",
        "none",
        [query(f"sum by (family) ({metric('incidents', OPEN)})", "{{family}}")],
        width=8,
    )
    reviews = series(
        "Reviewed, and honest after all",
        "Observed share of honest events that were held back, against the promise (dashed), as "
        "far as people reviewed.",
        "percentunit",
        [
            query(f"max({metric('observed_false_positive_share', AT)})", "observed"),
            query(parts.promise("quarantine"), "promised"),
        ],
        width=8,
    )
    return (
        board.with_panel(through)
        .with_panel(incidents)
        .with_panel(
            parts.promised(parts.coloured(reviews, {"observed": "red"}), {"promised": "dark-red"})
        )
    )


def dashboard() -> build.Dashboard:
    """The whole dashboard."""
    board = frame(
        UID,
        "What is attacked, by which evidence, what came through, and what to do.",
        since="now-3h",
    ).with_variable(family_variable())
    board = _what(board.with_row(build.Row("What it is")))
    board = _course(board.with_row(build.Row("Its course")))
    return _outcome(board.with_row(build.Row("What came of it")))
