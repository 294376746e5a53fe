"""Takes the README's pictures of the console:  python -m tests.web.console_shots deploy/images

All but that of an incident are of the fake desk; that one is of a service which judged an attacked
stream. A second argument names the only picture to take: ``incident`` or ``desk``.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import sync_playwright

from tests.kafka.kafka_helpers import broker_module
from tests.web.driving import until
from tests.web.report_shot import EVENTS, attacked_by_twelve

ATTACK_SECONDS = 40
JUDGE_SECONDS = 300


def main(folder: Path, only: str = "") -> None:
    if only != "incident":
        of_the_desk(folder)
    if only != "desk":
        of_an_incident(folder)
    if quant := shutil.which("pngquant"):  # fewer colours, a third of the size
        for path in sorted(map(str, folder.glob("console-*.png"))):
            subprocess.run([quant, "--force", "--output", path, path], check=True)


def of_an_incident(folder: Path) -> None:
    """The largest incident of a service that judges a backdoor by twelve accounts."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        source, port = attacked_by_twelve(place), broker_module().free_port()
        url = f"http://127.0.0.1:{port}"
        options = ["--from", source, "--to", place / "accepted.jsonl", "--out", place / "out"]
        process = subprocess.Popen(
            [sys.executable, "-m", "monitor", "run", *options, "--http-port", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(lambda: judged(url) >= EVENTS, JUDGE_SECONDS)
            found = httpx.get(f"{url}/v1/incidents").json()["items"]
            largest = max(found, key=lambda one: one["events"])["id"]
            with sync_playwright() as play:
                browser = play.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = browser.new_page(viewport={"width": 1280, "height": 1000})
                page.goto(f"{url}/incidents/{largest}")
                page.get_by_test_id("incident-timeline").locator("svg").wait_for()
                page.wait_for_timeout(2500)
                page.screenshot(path=folder / "console-incident.png")
                browser.close()
        finally:
            process.terminate()
            process.wait(60)


def judged(url: str) -> int:
    """How many events the service has judged, 0 before it answers."""
    try:
        return int(httpx.get(f"{url}/v1/status").json().get("events", 0))
    except (httpx.HTTPError, ValueError):
        return 0


def of_the_desk(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.admin.fake_server"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    url = process.stdout.readline().strip()
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            attacked(page, url, process, folder)
            tuned(page, url, folder)
            reviewed(page, url, folder)
            browser.close()
    finally:
        process.kill()
        process.wait()


def attacked(page: Any, url: str, process: subprocess.Popen[str], folder: Path) -> None:
    page.goto(url)
    for second in range(ATTACK_SECONDS):
        page.wait_for_timeout(1000)
        if second > ATTACK_SECONDS // 3:
            assert process.stdin is not None
            process.stdin.write(f"{random.Random(second).randint(18, 30)}\n")
            process.stdin.flush()
    page.screenshot(path=folder / "console-overview.png")


def tuned(page: Any, url: str, folder: Path) -> None:
    page.goto(f"{url}/thresholds")
    page.wait_for_timeout(2000)
    box = page.get_by_test_id("line-quarantine").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 150
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y)
    page.mouse.move(x + 60, y)
    page.mouse.up()
    page.wait_for_timeout(1500)
    page.get_by_test_id("reason").fill("Hold less while the import runs")
    page.wait_for_timeout(800)
    page.screenshot(path=folder / "console-thresholds.png")


def reviewed(page: Any, url: str, folder: Path) -> None:
    page.get_by_test_id("dark").click()
    page.goto(f"{url}/quarantine?status=open&family=sybil")
    page.wait_for_timeout(1500)
    for key in "jxjxjx":
        page.keyboard.press(key)
        page.wait_for_timeout(200)
    page.keyboard.press("c")
    page.wait_for_timeout(1500)
    page.screenshot(path=folder / "console-quarantine.png")
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    page.keyboard.press("o")
    page.wait_for_timeout(2000)
    page.screenshot(path=folder / "console-event.png")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(url)
    page.wait_for_timeout(2500)
    page.screenshot(path=folder / "console-phone.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
