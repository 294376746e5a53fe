"""Takes the README's pictures of the console:  python -m tests.web.console_shots deploy/images"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ATTACK_SECONDS = 40


def main(folder: Path) -> None:
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
            grouped(page, url, folder)
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


def grouped(page: Any, url: str, folder: Path) -> None:
    page.goto(f"{url}/incidents/inc-2")
    page.wait_for_timeout(2500)
    page.screenshot(path=folder / "console-incident.png")


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
    main(Path(sys.argv[1]))
