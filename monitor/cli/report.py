"""``report.html``: one self-contained page that opens without a network.

Everything that comes from the stream is hostile text. In the page's HTML it is escaped, in the
embedded JSON ``<``, ``>`` and ``&`` are written as escapes, and a content security policy forbids
the page to load anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monitor.cli import report_plots as plots
from monitor.cli.desk_view import counted
from monitor.cli.report_data import ACCEPT, FLAG, INVALID, QUARANTINE, Tally
from monitor.cli.report_page import Card, Tile, card, page_of, tile_of
from monitor.cli.report_plots import COLOURS, shown

WIDE = ("risk", "time", "speed")


def write_report(
    path: Path,
    tally: Tally,
    summary: Mapping[str, Any],
    *,
    speed: Sequence[tuple[float, int]] = (),
    tiles: Sequence[Tile] = (),
) -> None:
    """Write the page for a finished run.

    Parameters
    ----------
    path
        The file; replaced when there.
    tally
        The counted decisions.
    summary
        What summary.json holds; ``inputs``, ``policy``, ``versions`` are shown.
    speed
        (seconds since start, events so far), rising.
    tiles
        Further tiles behind the verdict counts.
    """
    figures = _figures(tally, summary["policy"], speed)
    inputs = ", ".join(shown(name, 80) for name in summary.get("inputs", ()))
    body = _body(tally, summary, figures, tiles)
    page = page_of("Poisoning report", inputs, body, {n: f for n, (_, _, f) in figures.items()})
    path.write_text(page, encoding="utf-8", errors="replace")


def _figures(
    tally: Tally, policy: Mapping[str, Any], speed: Sequence[tuple[float, int]]
) -> dict[str, Card]:
    """Title, remark and figure of each plot, by its id in the page."""
    found: dict[str, Card] = {
        "risk": (
            "Risk over the stream",
            "Risk 2 is what one ordinary event in 100 reaches, 3 one in 1,000. "
            "The lines are the policy's thresholds.",
            plots.risk_over_time(tally, policy),
        ),
        "time": (
            "Held back, flagged and invalid over the stream",
            "A wall of red is a campaign; a slow rise may be drift.",
            plots.verdicts_over_time(tally),
        ),
        "class": (
            "By class",
            "The label each event claims.",
            plots.by_class(tally),
        ),
        "source": (
            "By source",
            "The sources with most events held back or flagged, next to all they sent.",
            plots.by_source(tally),
        ),
    }
    if tally.families:
        found["family"] = (
            "By family",
            "The kind of poisoning that the strongest evidence speaks for.",
            plots.by_family(tally),
        )
    if tally.detectors:
        found["detector"] = (
            "By detector",
            "How often each detector is among the reasons.",
            plots.by_detector(tally),
        )
    found["share"] = (
        "Is the risk calibrated?",
        "Share of events at or above each risk. Honest traffic follows the dotted line; "
        "poison lifts the curve above it on the right.",
        plots.risk_distribution(tally),
    )
    found["histogram"] = ("Risk by verdict", "Logarithmic.", plots.risk_histogram(tally))
    if len(speed) > 2:
        found["speed"] = (
            "Throughput",
            "Events a second while this run was working.",
            plots.throughput(speed),
        )
    return found


def _body(
    tally: Tally,
    summary: Mapping[str, Any],
    figures: Mapping[str, Card],
    tiles: Sequence[Tile],
) -> Iterator[str]:
    yield "<section class='tiles'>"
    for tile in (*_tiles(tally), *tiles):
        yield tile_of(tile)
    yield "</section>"
    yield _policy(summary)
    wide = [name for name in figures if name in WIDE]
    narrow = [name for name in figures if name not in WIDE]
    yield from (card(name, figures[name]) for name in wide[:2])
    yield "<section class='plots'>"
    yield from (card(name, figures[name]) for name in narrow)
    yield "</section>"
    yield from (card(name, figures[name]) for name in wide[2:])
    yield from _riskiest(tally)
    yield from _invalid(tally)
    yield _footer(summary)


def _tiles(tally: Tally) -> list[Tile]:
    def share(count: int) -> str:
        return f"{100 * count / max(1, tally.events):.2f} % of {tally.events:,}"

    verdicts = tally.verdicts
    passed, held = tally.warmup_passed, tally.warmup - tally.warmup_passed
    warm = f"{passed:,} of them unjudged, during warm-up" if passed else ""
    kept = f"{held:,} of them unjudged, during warm-up" if held else ""
    return [
        ("accepted", f"{verdicts[ACCEPT]:,}", warm or share(verdicts[ACCEPT]), COLOURS[ACCEPT]),
        ("flagged", f"{verdicts[FLAG]:,}", share(verdicts[FLAG]), COLOURS[FLAG]),
        (
            "quarantined",
            f"{verdicts[QUARANTINE]:,}",
            kept or share(verdicts[QUARANTINE]),
            COLOURS[QUARANTINE],
        ),
        ("invalid", f"{verdicts[INVALID]:,}", share(verdicts[INVALID]), COLOURS[INVALID]),
    ]


def _policy(summary: Mapping[str, Any]) -> str:
    policy = summary["policy"]
    budget = ", ".join(f"{shown(name)} {part:g}" for name, part in policy["budget"].items())
    meaning = {
        "enforce": "quarantined events were held back",
        "alert": "quarantined events passed, with an alert",
        "shadow": "everything passed; verdicts are for the record only",
    }[policy["mode"]]
    return (
        f"<p class='policy'><b>Policy {policy['version']}</b>, mode <b>{policy['mode']}</b>: "
        f"{meaning}. Meant to flag {100 * policy['flag_at']:g} % and to hold back "
        f"{100 * policy['quarantine_at']:g} % of honest events, shared out by family: {budget}.</p>"
    )


def _riskiest(tally: Tally) -> Iterator[str]:
    records = tally.riskiest()
    if not records:
        return
    yield f"<section class='card'><h2>The {counted(len(records), 'riskiest event')}</h2>"
    yield "<div class='scroll'><table><thead><tr><th>line</th><th>risk</th><th>verdict</th>"
    yield "<th>family</th><th>source</th><th>label</th><th>why</th></tr></thead><tbody>"
    for record in records:
        why = "<br>".join(shown(r.get("text", ""), 400) for r in record.get("reasons") or ())
        families = ", ".join(shown(family) for family in record.get("families") or ())
        yield (
            f"<tr><td class='n' title='{shown(record.get('id'), 128)}'>{record['place']}</td>"
            f"<td class='n'>{record['risk']:.2f}</td>"
            f"<td class='t'><i class='{record['verdict']}'></i>{record['verdict']}</td>"
            f"<td class='t'>{families}</td><td class='who'>{shown(record.get('source'))}</td>"
            f"<td class='who'>{shown(record.get('label'), 32)}</td><td class='why'>{why}</td></tr>"
        )
    yield "</tbody></table></div></section>"


def _invalid(tally: Tally) -> Iterator[str]:
    if not tally.codes:
        return
    yield "<section class='card'><h2>Invalid records</h2><div class='scroll'><table><thead><tr>"
    yield "<th>code</th><th>records</th><th>first line</th><th>what was wrong there</th></tr>"
    yield "</thead><tbody>"
    for code, count in sorted(tally.codes.items(), key=lambda item: (-item[1], item[0])):
        line, text = tally.code_examples[code]
        yield f"<tr><td>{shown(code)}</td><td class='n'>{count:,}</td><td class='n'>{line + 1}</td>"
        yield f"<td class='why'>{shown(text, 400)}</td></tr>"
    yield "</tbody></table></div></section>"


def _footer(summary: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{shown(k)} {shown(v)}" for k, v in summary["versions"].items())
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    speed = summary.get("events_per_second")
    rate = f"{speed:,.0f} events/s · " if speed else ""
    return f"<footer>{rate}{versions} · written {made}</footer>"
