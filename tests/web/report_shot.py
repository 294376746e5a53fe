"""Takes the README's picture of a report:  python -m tests.web.report_shot deploy/images

It attacks the electricity stream with a backdoor of twelve accounts, replays it, and reports on the
largest incident, by the program's own commands.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson
from playwright.sync_api import sync_playwright

from loadtest.streams import load
from monitor.cli.app import execute

EVENTS = 24_000
NAME = "incident-report.png"


def run(*arguments: str) -> None:
    print("poisoning-monitor", *arguments, file=sys.stderr)
    code = execute(arguments)
    if code:
        raise SystemExit(code)


def attacked_by_twelve(folder: Path) -> Path:
    """A file with the stream and a backdoor in it."""
    recorded, attacked = (folder / name for name in ("e.jsonl", "attacked.jsonl"))
    lines = load("electricity").lines()[:EVENTS]
    recorded.write_bytes(b"".join(line + b"\n" for line in lines))
    attack = ("--attack", "backdoor", "--rate", "0.03", "--sources", "12", "--pattern", "spread")
    run("inject", str(recorded), *attack, "--out", str(attacked))
    return attacked


def reported(folder: Path) -> Path:
    """The page about the largest incident."""
    attacked, out = attacked_by_twelve(folder), folder / "out"
    run("replay", str(attacked), "--out", str(out), "--no-report")
    found = [orjson.loads(line) for line in (out / "incidents.jsonl").open("rb")]
    largest = max(found, key=lambda one: one["events"])["id"]
    page = folder / "incident.html"
    run("report", "--dir", str(out), "--incident", largest, "--out", str(page))
    return page


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as play:
        made = reported(Path(temporary))
        chromium = shutil.which("chromium")
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1480})
        page.goto(made.as_uri())
        page.wait_for_timeout(2_500)
        page.screenshot(path=folder / NAME)
        browser.close()
    if quant := shutil.which("pngquant"):  # fewer colours, a third of the size
        picture = str(folder / NAME)
        subprocess.run([quant, "--force", "--output", picture, picture], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
