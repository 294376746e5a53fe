"""The console while things fail behind it: sentences instead of traces, and what works goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("nicegui", reason="nicegui is not installed")
expect = sync_api.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_MS = 20_000
A_BUG = "The service failed to answer; its log says why."


class Server:
    """A service whose desk can be told to fail."""

    def __init__(self, kind: str = "desk", port: int = 0, tokens: str = "-") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.admin.faulty_server", str(port), tokens, kind],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.url = self.read()
        self.port = urlsplit(self.url).port or 0

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def calls(self, name: str) -> int:
        self.tell(f"calls {name}")
        return int(self.read())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def running(*args: Any) -> Iterator[Server]:
    server = Server(*args)
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        options = ["--no-sandbox", "--disable-dev-shm-usage", rules]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(server: Server, chromium: Any) -> Iterator[Any]:
    server.tell("well")
    context = chromium.new_context(viewport={"width": 1280, "height": 860}, base_url=server.url)
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield context.new_page()
    server.tell("well")
    context.close()


def untroubled(page: Any) -> None:
    """Neither a trace nor markup of it has reached the page."""
    text = page.content()
    assert "Traceback" not in text and "ZeroDivisionError" not in text
    assert page.evaluate("window.hurt") is None


def test_a_store_that_is_down_is_said_and_tried_again(server: Server, page: Any) -> None:
    server.tell("quarantine down")
    page.goto("/")
    expect(page.get_by_test_id("latest")).to_contain_text("cannot be reached")
    expect(page.get_by_test_id("tile-open")).to_have_text("–")
    expect(page.get_by_test_id("tile-policy")).to_have_text("v6")
    expect(page.get_by_test_id("mood-title")).not_to_contain_text("cannot be read")
    server.tell("well")
    expect(page.get_by_test_id("tile-open")).not_to_have_text("–")
    expect(page.get_by_test_id("latest").locator(".item").first).to_be_visible()


def test_a_desk_that_hangs_holds_up_no_counts(server: Server, page: Any) -> None:
    server.tell("policy hang 30")
    server.tell("quarantine hang 30")
    page.goto("/")
    events = page.get_by_text(re.compile(r"in all$"))
    expect(events).to_be_visible()
    before = page.get_by_test_id("tile-held").inner_text()
    server.tell("attack 700")
    expect(page.get_by_test_id("tile-held")).not_to_have_text(before)
    expect(page.get_by_test_id("mood-title")).to_have_text("Attack likely")


def test_pages_say_in_a_sentence_what_failed(server: Server, page: Any) -> None:
    server.tell("quarantine down")
    page.goto("/quarantine")
    said = "The quarantine's store cannot be reached: connection refused."
    expect(page.get_by_test_id("failed")).to_have_text(re.compile(said, re.IGNORECASE))
    server.tell("log bug")
    page.goto("/audit")
    expect(page.get_by_test_id("failed")).to_have_text(A_BUG)
    untroubled(page)


def test_a_change_that_fails_changes_nothing_and_can_be_tried_again(
    server: Server, page: Any
) -> None:
    page.goto("/thresholds")
    expect(page.get_by_test_id("now-quarantine")).not_to_have_text("–")
    server.tell("policy.propose bug")
    page.get_by_label("Hold at (per cent)").fill("0.05")
    page.get_by_test_id("reason").fill("Hold less")
    page.get_by_test_id("apply").click()
    expect(page.get_by_text(A_BUG)).to_be_visible()
    expect(page.get_by_test_id("apply-state")).to_have_text("Nothing was changed.")
    expect(page.get_by_test_id("reason")).to_have_value("Hold less")
    untroubled(page)
    server.tell("well")
    page.get_by_test_id("apply").click()
    expect(page.get_by_test_id("apply-state")).to_contain_text("2 of 2 replicas")


def test_a_review_that_fails_can_be_tried_again(server: Server, page: Any) -> None:
    page.goto("/quarantine?status=open")
    page.locator('[data-testid^="row-"]').first.wait_for()
    page.keyboard.press("x")
    page.keyboard.press("r")
    expect(page.get_by_test_id("dry-run-sum")).to_contain_text("1 would be released")
    server.tell("quarantine.release down")
    page.get_by_test_id("review-reason").fill("A known shop")
    page.get_by_test_id("review-go").click()
    expect(page.get_by_text("cannot be reached")).to_be_visible()
    server.tell("well")
    page.get_by_test_id("review-go").click()
    expect(page.get_by_text("1 released.")).to_be_visible()


def test_a_dragged_line_asks_one_what_if_at_a_time(server: Server, page: Any) -> None:
    page.goto("/thresholds")
    expect(page.get_by_test_id("now-quarantine")).not_to_have_text("–")
    server.tell("policy.whatif hang 0.5")
    before = server.calls("policy.whatif")
    line = page.get_by_test_id("line-quarantine").bounding_box()
    x, y = line["x"] + line["width"] / 2, line["y"] + line["height"] / 2
    page.mouse.move(x, y)
    began = time.monotonic()
    page.mouse.down()
    for step in range(20):
        page.mouse.move(x + 6 * step, y)
        page.wait_for_timeout(100)
    page.mouse.up()
    expect(page.get_by_test_id("whatif")).not_to_have_class(re.compile("stale"))
    # Each takes half a second; that they never overlap bounds their number, however fast we are.
    asked, seconds = server.calls("policy.whatif") - before, time.monotonic() - began
    assert 2 <= asked <= seconds / 0.5 + 1, (asked, seconds)
    server.tell("well")
    held = page.get_by_test_id("then-quarantine").inner_text()
    field = page.get_by_label("Hold at (per cent)")
    share = field.input_value()
    answer = httpx.post(
        f"{server.url}/v1/policy/whatif",
        json={"policy": policy_with(server, quarantine_at=float(share) / 100)},
    )
    assert answer.status_code == 200, answer.text
    assert held == f"{answer.json()['after']['quarantine']:,}"


def policy_with(server: Server, **changed: float) -> dict[str, Any]:
    policy: dict[str, Any] = httpx.get(f"{server.url}/v1/policy").json()["policy"]
    return policy | changed


def test_while_the_help_is_open_keys_review_nothing(page: Any) -> None:
    page.goto("/quarantine?status=open")
    page.locator('[data-testid^="row-"]').first.wait_for()
    page.keyboard.press("?")
    expect(page.get_by_text("Keys in the quarantine")).to_be_visible()
    page.keyboard.press("r")
    page.wait_for_timeout(400)
    expect(page.get_by_test_id("review-reason")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Keys in the quarantine")).to_be_hidden()
    page.keyboard.press("r")
    expect(page.get_by_test_id("review-reason")).to_be_visible()


def test_a_page_outlives_a_restart(chromium: Any) -> None:
    first = Server()
    context = chromium.new_context(base_url=first.url)
    try:
        page = context.new_page()
        page.goto("/quarantine?status=open&family=sybil")
        page.locator('[data-testid^="row-"]').first.wait_for()
        page.evaluate("window.before = true")
    finally:
        first.end()
    with running("desk", first.port):
        # The page comes again by itself, with its filters, and answers.
        page.wait_for_function("() => !window.before && document.querySelector('.q-table')")
        total = page.get_by_test_id("total")
        expect(total).to_contain_text("events")
        page.get_by_test_id("older").click()
        expect(total).to_contain_text("26 to 50")
        assert "family=sybil" in page.url
        context.close()


def test_without_a_desk_the_counts_are_there(chromium: Any) -> None:
    with running("none") as bare:
        context = chromium.new_context(base_url=bare.url)
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_test_id("mood-title")).to_have_text("All quiet")
        expect(page.get_by_test_id("latest")).to_contain_text("no desk")
        expect(page.get_by_test_id("tile-policy")).to_have_text("–")
        page.goto("/quarantine")
        expect(page.get_by_text("This process has no desk")).to_be_visible()
        page.goto("/lineage?id=evt-1")
        expect(page.get_by_test_id("lineage-failed")).to_contain_text("keeps no decisions")
        context.close()


def test_a_second_person_approves(chromium: Any, tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    ana, ben = file.create("ana", Role.OPERATOR), file.create("ben", Role.OPERATOR)
    with running("two_person", 0, str(tmp_path / "tokens.json")) as server:
        pages = {}
        for name, token in (("ana", ana), ("ben", ben)):
            context = chromium.new_context(base_url=server.url)
            page = pages[name] = context.new_page()
            page.goto("/login")
            page.get_by_test_id("login-token").fill(token)
            page.get_by_test_id("login-submit").click()
            expect(page.get_by_test_id("mood")).to_be_visible()
        pages["ana"].goto("/thresholds")
        expect(pages["ana"].get_by_test_id("now-quarantine")).not_to_have_text("–")
        pages["ana"].get_by_label("Hold at (per cent)").fill("0.05")
        pages["ana"].get_by_test_id("reason").fill("<b>Hold</b> less")
        pages["ana"].get_by_test_id("apply").click()
        expect(pages["ana"].get_by_test_id("apply-state")).to_contain_text("second person")
        for page in pages.values():
            page.goto("/policy")
            waiting = page.get_by_test_id("waiting")
            expect(waiting).to_contain_text("<b>Hold</b> less")
            expect(waiting).to_contain_text("quarantine_at")
        approve = '[data-testid^="approve-"]'
        expect(pages["ana"].locator(approve)).to_be_disabled()
        pages["ben"].locator(approve).click()
        expect(pages["ben"].get_by_test_id("waiting")).to_be_hidden()
        expect(pages["ben"].get_by_test_id("version-7")).to_contain_text("approved by ben")

        pages["ben"].goto("/thresholds")
        expect(pages["ben"].get_by_test_id("now-quarantine")).not_to_have_text("–")
        pages["ben"].get_by_label("Hold at (per cent)").fill("0.2")
        pages["ben"].get_by_test_id("reason").fill("Hold more")
        pages["ben"].get_by_test_id("apply").click()
        expect(pages["ben"].get_by_test_id("apply-state")).to_contain_text("second person")
        pages["ana"].goto("/policy")
        reject = pages["ana"].locator('[data-testid^="reject-"]')
        reject.click()
        expect(pages["ana"].get_by_text("Say why")).to_be_visible()
        pages["ana"].locator('input[data-testid^="why-"]').fill("Not while the import runs")
        reject.click()
        expect(pages["ana"].get_by_test_id("waiting")).to_be_hidden()
        for page in pages.values():
            page.context.close()
