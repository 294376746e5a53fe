"""What every report's page has: its head, tiles, cards with plots, and the figures' script.

Everything that comes from the stream is hostile text. In the page's HTML it is escaped, in the
embedded JSON ``<``, ``>`` and ``&`` are written as escapes, and a content security policy forbids
the page to load anything.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

import orjson

from monitor.cli.report_plots import Figure
from monitor.cli.report_style import SCRIPT, STYLE

CSP = (
    "default-src 'none'; form-action 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
Tile = tuple[str, str, str, str]
"""Title, figure, remark, colour."""
Card = tuple[str, str, Figure]
"""Title, remark and figure of a plot."""


def page_of(
    title: str, subject: str, body: Iterable[str], figures: Mapping[str, Figure], style: str = ""
) -> str:
    """A whole page that needs no network.

    Parameters
    ----------
    title
        Plain text of ours.
    subject
        What it is about, as HTML: escaped already.
    body
        HTML between the heading and the script.
    figures
        By the name of their :func:`card`.
    style
        Further rules behind the common style sheet.
    """
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - slow to import

    # Without a figure the library would be four megabytes for nothing.
    scripts = f"<script>{get_plotlyjs()}</script><script>{SCRIPT}</script>" if figures else ""
    return "".join(
        (
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
            f'<meta http-equiv="Content-Security-Policy" content="{CSP}">',
            "<meta name='viewport' content='width=device-width,initial-scale=1'>",
            f"<title>{title} · {subject}</title><style>{STYLE}{style}</style></head><body>",
            f"<header><h1>{title}</h1><p class='sub'>{subject}</p></header><main>",
            *body,
            "</main><script type='application/json' id='figures'>",
            embedded(figures),
            f"</script>{scripts}</body></html>\n",
        )
    )


def card(name: str, found: Card) -> str:
    """A plot with its title and remark."""
    title, remark, _ = found
    return (
        f"<figure class='card'><figcaption><h2>{title}</h2><p>{remark}</p></figcaption>"
        f"<div class='plot' id='plot-{name}'></div></figure>"
    )


def tile_of(tile: Tile) -> str:
    """A large figure with its title."""
    title, figure, remark, colour = (html.escape(part, quote=True) for part in tile)
    return (
        f"<div class='tile' style='--tone:{colour}'><span>{title}</span><b>{figure}</b>"
        f"<small>{remark}</small></div>"
    )


def embedded(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = orjson.dumps(value).decode()
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
