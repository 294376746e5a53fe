"""An attack, from the first alarm to the audit trail, on the service as ``run`` starts it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtest.streams import load
from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile
from monitor.runtime.inject import inject
from tests.kafka.kafka_helpers import broker_module
from tests.web.driving import Stage, drive, until

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("nicegui", reason="nicegui is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).resolve().parents[2]
BACKLOG, CALM, ALL = 9_000, 13_500, 16_000


def attacked() -> list[bytes]:
    """A calm beginning, then flipped labels from five sources."""
    honest = load("electricity")
    found = inject(honest, "flip", rate=0.05, pattern="burst", colluders=5, seed=0)
    return list(found.stream.lines()[:ALL])


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=options)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(20_000)
        sync_api.expect.set_options(timeout=20_000)
        yield context.new_page()
        browser.close()


def service(folder: Path, name: str, *options: str, **environ: str) -> tuple[Any, str, str]:
    """A process of ``run``, its address, and an operator's token."""
    tokens = folder / "tokens.json"
    token = TokenFile(tokens).create(f"olga-{name}", Role.OPERATOR)
    port = broker_module().free_port()
    more = {"MONITOR_HTTP__TOKENS_FILE": str(tokens), "PYTHONPATH": str(ROOT)} | environ
    process = subprocess.Popen(
        [sys.executable, "-m", "monitor", "run", "--http-port", str(port), *options],
        cwd=folder, env=os.environ | more,
        stdout=(folder / f"{name}.out").open("wb"), stderr=(folder / f"{name}.log").open("wb"),
    )  # fmt: skip
    return process, f"http://127.0.0.1:{port}", token


def judged(url: str, token: str) -> int:
    try:
        answer = httpx.get(f"{url}/v1/status", headers={"authorization": f"Bearer {token}"})
        return int(answer.json().get("events", 0))
    except (httpx.HTTPError, ValueError):
        return 0


class Feed:
    """A backlog, then a trickle of honest events until the attack comes."""

    def __init__(self, send: Callable[[list[bytes]], None]) -> None:
        self._send, self._lines, self._at = send, attacked(), BACKLOG
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._trickle, daemon=True)
        send(self._lines[:BACKLOG])

    def trickle(self) -> None:
        """Forty honest events a second from now on."""
        self._thread.start()

    def _trickle(self) -> None:
        while not self._stop.wait(0.5) and self._at + 20 <= CALM:
            self._send(self._lines[self._at : self._at + 20])
            self._at += 20

    def attack(self) -> None:
        """All the rest at once."""
        self._stop.set()
        self._thread.join()
        self._send(self._lines[self._at :])


def test_embedded(tmp_path: Path, page: Any) -> None:
    source, accepted = tmp_path / "feedback.jsonl", tmp_path / "accepted.jsonl"

    def send(lines: list[bytes]) -> None:
        with source.open("ab") as stream:
            stream.write(b"\n".join(lines) + b"\n")

    feed = Feed(send)
    options = ("--from", str(source), "--to", str(accepted), "--out", str(tmp_path / "out"))
    process, url, token = service(tmp_path, "one", *options)
    try:
        until(lambda: judged(url, token) >= BACKLOG, 120)
        feed.trickle()
        stage = Stage([url], token, feed.attack, lambda: accepted.read_bytes().splitlines())
        found = drive(stage, page, sync_api.expect)
    finally:
        process.terminate()
        process.wait(60)
    assert found["report_seconds"] < 2.0
    assert found["confirmed"] > 3
