"""The console in a real browser: Chromium drives it as an operator would.

The service runs in a process of its own, on the fake desk, with tokens. No request may leave it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile
from tests.unit.admin.fake_server import MARKUP
from tests.web.driving import Hands

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("nicegui", reason="nicegui is not installed")
expect = sync_api.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_MS = 15_000


@dataclass
class Served:
    """A running service."""

    url: str
    process: subprocess.Popen[str]
    tokens: dict[str, str]

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def api(self, role: str = "admin") -> httpx.Client:
        return httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {self.tokens[role]}"}
        )

    def version(self) -> int:
        with self.api() as client:
            return int(client.get("/v1/policy").headers["etag"].strip('W/"'))


class Visitor(Hands):
    """A browser's page, and what it did that it should not have."""

    def __init__(self, page: Any, site: Served) -> None:
        super().__init__(page, site.url, expect)
        self.site = site
        self.errors: list[str] = []
        self.outside: list[str] = []

    def login(self, role: str) -> None:
        self.log_in(self.site.tokens[role])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("console") / "tokens.json"
    file = TokenFile(path)
    tokens = {role.value: file.create(f"{role.value}-1", role) for role in Role}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.admin.fake_server", "0", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield Served(process.stdout.readline().strip(), process, tokens)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        # Names cannot be resolved, so that nothing could leave even if it were asked for.
        rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        options = ["--no-sandbox", "--disable-dev-shm-usage", rules]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def visitor(site: Served, chromium: Any, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    options = getattr(request, "param", {})
    size = {"width": options.get("width", 1280), "height": 860}
    context = chromium.new_context(viewport=size, color_scheme=options.get("light", "light"))
    context.set_default_timeout(PATIENCE_MS)
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    visit = Visitor(context.new_page(), site)

    def asked(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(site.url).netloc:
            visit.outside.append(request.url)

    visit.page.on("request", asked)
    visit.page.on("websocket", asked)
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("console", lambda said: said.type == "error" and visit.errors.append(said.text))
    yield visit
    context.close()
    assert not visit.outside, "a request left this machine"
    assert not visit.errors, "the browser reported errors"


def test_strangers_see_the_login_only(visitor: Visitor) -> None:
    visitor.go("/quarantine")
    assert urlsplit(visitor.page.url).path == "/login"
    visitor.by("login-token").fill("pm_wrong")
    visitor.by("login-submit").click()
    expect(visitor.page.get_by_role("alert")).to_contain_text("not known here")
    visitor.by("login-token").fill(visitor.site.tokens["operator"])
    visitor.by("login-submit").click()
    expect(visitor.page.locator(".who")).to_have_text("operator-1")
    visitor.by("logout").click()
    expect(visitor.by("login-token")).to_be_visible()
    visitor.go("/audit")
    expect(visitor.by("login-token")).to_be_visible()


def test_one_glance_tells_of_an_attack(visitor: Visitor) -> None:
    visitor.login("operator")
    visitor.go("/")
    title = visitor.by("mood-title")
    expect(title).to_have_text("All quiet")
    before = visitor.number("tile-open")
    visitor.site.tell("900")
    expect(title).to_have_text("Attack likely")
    expect(visitor.by("mood")).to_contain_text("times what the policy promises")
    expect(visitor.by("tile-held")).not_to_have_text("0")
    expect(visitor.by("rates-verdict").locator("svg path").first).to_be_attached()
    expect(visitor.by("latest").locator(".item").first).to_be_visible()
    expect(visitor.by("tile-open")).not_to_have_text(f"{before:,}")


def test_drag_a_line_see_what_if_apply_and_roll_back(visitor: Visitor) -> None:
    version = visitor.site.version()
    visitor.login("operator")
    visitor.go("/thresholds")
    visitor.settled()
    held, now = visitor.number("then-quarantine"), visitor.number("now-quarantine")
    assert held == now
    visitor.drag("quarantine", 160)
    expect(visitor.by("then-quarantine")).not_to_have_text(f"{held:,}")
    visitor.settled()
    assert visitor.number("then-quarantine") < now
    assert visitor.number("now-quarantine") == now
    share = float(visitor.page.get_by_label("Hold at (per cent)").input_value())
    assert 0 < share < 0.1

    visitor.by("apply").click()
    expect(visitor.page.get_by_text("Say why")).to_be_visible()
    assert visitor.site.version() == version
    visitor.by("reason").fill("Too many held")
    visitor.by("apply").click()
    expect(visitor.by("apply-state")).to_contain_text("2 of 2 replicas report it")
    with visitor.site.api() as client:
        change = client.get("/v1/policy").json()
    assert (change["version"], change["who"], change["why"]) == (
        version + 1, "operator-1", "Too many held",
    )  # fmt: skip
    assert change["policy"]["quarantine_at"] == pytest.approx(share / 100)

    visitor.go("/policy")
    expect(visitor.by(f"version-{version + 1}")).to_contain_text("Too many held")
    visitor.by(f"diff-{version + 1}").click()
    expect(visitor.by(f"version-{version + 1}")).to_contain_text("quarantine_at")
    visitor.by(f"rollback-{version}").click()
    expect(visitor.by("rollback-diff")).to_contain_text("quarantine_at")
    visitor.by("rollback-reason").fill("That was too bold")
    visitor.by("rollback-go").click()
    expect(visitor.by(f"version-{version + 2}")).to_contain_text("rollback")
    visitor.go("/audit")
    first = visitor.by("audit-row").first
    expect(first).to_contain_text("policy rollback")
    expect(first).to_contain_text("That was too bold")


def test_a_rollback_to_what_holds_already_makes_no_version(visitor: Visitor) -> None:
    with visitor.site.api() as client:
        now = client.get("/v1/policy").json()
        for flag_at in (now["policy"]["flag_at"] / 2 + 0.001, now["policy"]["flag_at"]):
            version = visitor.site.version()
            body = {"policy": {**now["policy"], "flag_at": flag_at}, "why": "There and back"}
            sent = client.put("/v1/policy", json=body, headers={"if-match": f'"{version}"'})
            assert sent.is_success, sent.text
    version = visitor.site.version()
    visitor.login("operator")
    visitor.go("/policy")
    visitor.by(f"rollback-{version - 2}").click()
    expect(visitor.page.get_by_text("Nothing differs from version")).to_be_visible()
    expect(visitor.by("rollback-dialog")).to_have_count(0)
    assert visitor.site.version() == version
    visitor.by(f"rollback-{version - 1}").click()
    expect(visitor.by("rollback-diff")).to_contain_text("flag_at")


def test_keys_and_numbers_move_lines_and_a_stale_version_is_a_conflict(visitor: Visitor) -> None:
    visitor.login("operator")
    visitor.go("/thresholds")
    visitor.settled()
    before = visitor.number("then-flag") + visitor.number("then-quarantine")
    visitor.by("line-flag").focus()
    for _ in range(8):
        visitor.page.keyboard.press("ArrowLeft")
    expect(visitor.by("change-flag")).to_have_text(re.compile(r"^\+"))
    visitor.settled()
    assert visitor.number("then-flag") + visitor.number("then-quarantine") > before
    field = visitor.page.get_by_label("Flag at (per cent)")
    field.fill("2")
    expect(visitor.by("line-flag")).to_contain_text("2 %")
    visitor.settled()

    version = visitor.site.version()
    with visitor.site.api() as client:
        policy = client.get("/v1/policy").json()["policy"]
        answer = client.put(
            "/v1/policy", json={"policy": policy | {"flag_at": 0.02}, "why": "meanwhile"},
            headers={"if-match": f'"{version}"'},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
    visitor.by("reason").fill("Mine")
    visitor.by("apply").click()
    expect(visitor.by("conflict")).to_contain_text("admin-1 made version")
    assert visitor.site.version() == version + 1
    visitor.by("conflict-reload").click()
    expect(visitor.by("conflict")).to_be_hidden()
    visitor.settled()
    visitor.by("apply").click()
    expect(visitor.by("apply-state")).to_contain_text(f"Version {version + 2}")


def test_filter_and_triage_by_keys(visitor: Visitor) -> None:
    visitor.login("operator")
    visitor.go("/quarantine?status=open&family=replay")
    expect(visitor.rows().first).to_contain_text("replay")
    total = visitor.by("total").inner_text()
    visitor.by("search").fill("acct")
    expect(visitor.page).to_have_url(re.compile("text=acct"))
    visitor.by("search").fill("no such thing")
    expect(visitor.page.get_by_text("Nothing fits these filters.")).to_be_visible()
    visitor.by("search").fill("")
    expect(visitor.by("total")).to_have_text(total)
    visitor.page.locator("h1").click()

    keys = [row.get_attribute("data-key") for row in visitor.rows().all()]
    visitor.page.keyboard.press("j")
    expect(visitor.page.locator("tr.focus")).to_have_attribute("data-key", keys[1])
    visitor.page.keyboard.press("x")
    expect(visitor.by("selected")).to_have_text("1 selected")
    visitor.page.keyboard.press("j")
    expect(visitor.page.locator("tr.focus")).to_have_attribute("data-key", keys[2])
    visitor.page.keyboard.press("x")
    expect(visitor.by("selected")).to_have_text("2 selected")
    visitor.page.keyboard.press("k")
    visitor.page.keyboard.press("?")
    expect(visitor.page.get_by_text("Keys in the quarantine")).to_be_visible()
    visitor.page.keyboard.press("Escape")
    expect(visitor.page.get_by_text("Keys in the quarantine")).to_be_hidden()
    visitor.page.keyboard.press("r")
    expect(visitor.by("dry-run-sum")).to_contain_text("2 would be released")
    expect(visitor.by("review-reason")).to_be_focused()
    visitor.page.keyboard.type("rc: a retry of the shop")
    visitor.page.keyboard.press("Enter")
    expect(visitor.page.get_by_text("2 released.")).to_be_visible()
    with visitor.site.api() as client:
        for key in keys[1:3]:
            event = client.get(f"/v1/quarantine/events/{key}").json()
            assert (event["status"], event["reviewed_by"]) == ("released", "operator-1")
            assert event["review_reason"] == "rc: a retry of the shop"


def test_bulk_by_filter_with_a_dry_run(visitor: Visitor) -> None:
    visitor.login("operator")
    visitor.go("/quarantine?status=open&source=ring-1-004")
    expect(visitor.rows().first).to_contain_text("ring-1-004")
    total = int(visitor.by("total").inner_text().split()[-2].replace(",", ""))
    visitor.by("select-all").click()
    expect(visitor.by("selected")).to_have_text(f"{total} selected")
    visitor.by("confirm").click()
    expect(visitor.by("dry-run-sum")).to_have_text(f"{total} would be confirmed.")
    expect(visitor.by("dry-run")).to_contain_text("ring-1-004")
    visitor.by("review-cancel").click()
    with visitor.site.api() as client:
        query = {"source": "ring-1-004", "status": "open"}
        assert client.get("/v1/quarantine", params=query).json()["total"] == total
    visitor.by("confirm").click()
    expect(visitor.by("review-go")).to_have_text(f"Confirm {total} events")
    visitor.by("review-reason").fill("The ring")
    visitor.by("review-go").click()
    expect(visitor.page.get_by_text("Nothing fits these filters.")).to_be_visible()
    with visitor.site.api() as client:
        query = {"source": "ring-1-004", "status": "confirmed"}
        assert client.get("/v1/quarantine", params=query).json()["total"] == total


def test_pages_of_the_table_come_from_the_server(visitor: Visitor) -> None:
    visitor.login("viewer")
    visitor.go("/quarantine")
    expect(visitor.rows()).to_have_count(25)
    first = visitor.rows().first.get_attribute("data-key")
    visitor.by("older").click()
    expect(visitor.by("total")).to_contain_text("26 to 50 of")
    assert visitor.rows().first.get_attribute("data-key") != first
    visitor.by("newer").click()
    expect(visitor.by("total")).to_contain_text("1 to 25 of")
    visitor.by(f"select-{first}").click()
    expect(visitor.by("selected")).to_have_text("1 selected")
    expect(visitor.by("release")).to_be_disabled()
    visitor.go("/thresholds")
    expect(visitor.by("apply")).to_be_disabled()


def test_an_event_says_why(visitor: Visitor) -> None:
    visitor.login("operator")
    visitor.go("/quarantine?status=open&family=sybil")
    key = visitor.rows().first.get_attribute("data-key")
    visitor.rows().first.locator("td").nth(3).click()
    expect(visitor.page).to_have_url(re.compile(f"/quarantine/{key}$"))
    expect(visitor.by("reason-text").first).to_contain_text("comparable trusted events")
    for title in (
        "Contribution by detector", "What comparable events say", "Evidence of ring",
        "Its source", "As it came",
    ):  # fmt: skip
        expect(visitor.page.get_by_role("heading", name=title).first).to_be_visible()
    expect(visitor.by("event-value")).to_contain_text('"features"')
    visitor.by("event-release").click()
    visitor.by("review-reason").fill("Known merchant")
    visitor.by("review-go").click()
    expect(visitor.by("event-status")).to_have_text("released")
    expect(visitor.page.get_by_text("Known merchant")).to_be_visible()
    expect(visitor.by("event-confirm")).to_be_disabled()
    visitor.go("/quarantine?status=open&detector=class_moments")
    expect(visitor.rows().first).to_contain_text("clean label")
    visitor.page.keyboard.press("o")
    for title in ("Contribution by feature", "The values it is about"):
        expect(visitor.page.get_by_role("heading", name=title).first).to_be_visible()
    visitor.go("/quarantine/3-1")
    expect(visitor.by("failed")).to_contain_text("no held event '3-1'")


def test_an_incident_leads_to_its_events(visitor: Visitor) -> None:
    visitor.login("operator")
    visitor.go("/")
    expect(visitor.by("open-incidents")).to_contain_text("Label flip, campaign")
    visitor.go("/incidents?state=closed")
    expect(visitor.by("incident-row")).to_have_count(2)
    visitor.go("/incidents?family=backdoor")
    expect(visitor.by("incident-row")).to_have_count(1)
    visitor.by("incident-row").get_by_role("link").click()
    expect(visitor.by("incident-title")).to_have_text("Backdoor, campaign")
    expect(visitor.by("incident-text")).to_contain_text("suspicious events")
    expect(visitor.by("incident-runbook")).to_have_text("deploy/runbooks/backdoor.md")
    expect(visitor.by("incident-common")).to_contain_text("about 4711.5")
    expect(visitor.by("incident-timeline").locator("svg")).to_be_visible()
    visitor.by("incident-confirm").click()
    expect(visitor.by("dry-run-dialog")).to_contain_text("Confirm as poison")
    visitor.by("review-cancel").click()
    sources = visitor.by("incident-sources").get_by_role("link")
    name = sources.first.inner_text()
    visitor.by("incident-held").click()
    expect(visitor.page).to_have_url(re.compile("incident=inc-2"))
    expect(visitor.rows().first).to_contain_text("backdoor")
    visitor.go("/incidents/inc-2")
    sources.first.click()
    expect(visitor.rows().first).to_contain_text(name)
    visitor.go("/incidents/inc-404")
    expect(visitor.by("incident-gone")).to_be_visible()


def test_a_drill_from_the_console(visitor: Visitor) -> None:
    visitor.login("viewer")
    visitor.go("/drills")
    expect(visitor.by("drill-start")).to_be_disabled()
    expect(visitor.by("drills")).to_contain_text("No drill has run")
    visitor.login("operator")
    visitor.go("/drills")
    visitor.by("drill-seconds").fill("0")
    visitor.by("drill-start").click()
    expect(visitor.page.get_by_text("A drill's length must be above 0")).to_be_visible()
    visitor.by("drill-seconds").fill("20")
    visitor.by("drill-start").click()
    expect(visitor.by("drill-row")).to_contain_text("Backdoor: 39 of 40 canaries held")
    expect(visitor.by("drill-recall")).to_contain_text("97.5 %")


def test_blast_radius_and_taking_back(visitor: Visitor) -> None:
    visitor.login("operator")
    visitor.go("/blast?source=ring-1-000")
    expect(visitor.by("blast-events")).to_contain_text("accepted events match")
    n = visitor.number("blast-events")
    expect(visitor.by("blast-clean")).to_contain_text("Last clean: m-1")
    visitor.by("blast-retract").click()
    expect(visitor.by("retract-sum")).to_contain_text(f"{n} would be taken back")
    visitor.by("retract-go").click()  # without a reason nothing happens
    visitor.by("retract-reason").fill("The account was taken over")
    visitor.by("retract-go").click()
    expect(visitor.page.get_by_text(f"{n} taken back.")).to_be_visible()
    expect(visitor.page.get_by_text(f"{n} of them were taken back already.")).to_be_visible()
    expect(visitor.by("blast-retract")).to_have_count(0)
    with visitor.site.api() as client:
        (kept,) = client.get("/v1/retractions").json()["retractions"]
    assert (kept["events"], kept["who"]) == (n, "operator-1")
    visitor.login("viewer")
    visitor.go("/blast?source=acct-001")
    expect(visitor.by("blast-events")).to_be_visible()
    expect(visitor.by("blast-retract")).to_have_count(0)
    visitor.by("blast-source").fill("")
    visitor.by("blast-look").click()
    expect(visitor.page.get_by_text("Name a source, a key, an incident")).to_be_visible()


PUBLIC_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def held_event(site: Served, **query: str) -> dict[str, Any]:
    with site.api() as client:
        found = client.get("/v1/quarantine", params={"limit": 1, **query}).json()["items"]
    return dict(found[0])


def add_key(site: Served, key: dict[str, Any]) -> None:
    with site.api() as client:
        tag = {"if-match": f'"{site.version()}"'}
        answer = client.post("/v1/keys", json={"key": key, "why": "New"}, headers=tag)
        assert answer.status_code == 200, answer.text


def test_the_life_of_an_event(visitor: Visitor) -> None:
    event = held_event(visitor.site, status="confirmed", source="ring-1-000")
    visitor.login("viewer")
    visitor.go(f"/quarantine/{event['key']}")
    visitor.by("event-lineage").click()
    expect(visitor.page).to_have_url(re.compile(f"/lineage\\?id={event['event_id']}$"))
    expect(visitor.by("lineage-id")).to_have_value(event["event_id"])
    place = f"topic feedback, partition {event['partition']}, offset {event['offset']}"
    expect(visitor.by("lineage-place")).to_have_text(place)
    expect(visitor.by("lineage-verdict")).to_contain_text("Quarantined: held back")
    expect(visitor.by("lineage-reason").first).to_contain_text("comparable trusted events")
    expect(visitor.by("lineage-state")).to_contain_text(re.compile(r"^[0-9a-f]{32}@\d+$"))
    expect(visitor.by("lineage-software")).to_have_text("0.1.0")
    expect(visitor.by("lineage-proof")).to_contain_text("of the audit chain feedback-0")
    # The ledger and the chain both tell of the review: one deed.
    expect(visitor.by("lineage-deed")).to_have_count(1)
    expect(visitor.by("lineage-deed")).to_contain_text("Confirmed as poison by ben")
    expect(visitor.by("lineage-deed")).to_contain_text("audit chain desk-monitor-0")
    version = event["policy_version"]
    visitor.by("lineage-policy").click()
    expect(visitor.by(f"version-{version}")).to_be_visible()
    expect(visitor.by(f"version-{version + 1}")).to_have_count(0)
    visitor.page.go_back()
    visitor.by("lineage-incident").click()
    expect(visitor.by("incident-text")).to_be_visible()
    name = visitor.by("incident-event").first.inner_text()
    visitor.by("incident-event").first.click()
    expect(visitor.by("lineage-id")).to_have_value(name)
    expect(visitor.by("lineage-life")).to_have_count(1)

    visitor.by("lineage-id").fill("it's not known ")
    visitor.by("lineage-id").press("Enter")
    expect(visitor.by("lineage-command")).to_have_text(
        "poisoning-monitor audit show --config monitor.yaml -- 'it'\"'\"'s not known'"
    )
    expect(visitor.page).to_have_url(re.compile("id=it%27s\\+not\\+known$"))
    visitor.page.reload()
    expect(visitor.by("lineage-missing")).to_be_visible()


def test_keys_are_listed_without_their_secrets(visitor: Visitor) -> None:
    visitor.login("operator")
    visitor.go("/keys")
    expect(visitor.by("keys-none")).to_contain_text("keys add --file")
    shared = {"algorithm": "ed25519", "public_key": PUBLIC_KEY}
    add_key(visitor.site, {"id": "k-shop", "sources": ["shop-*"], "why": "The shop"} | shared)
    secret = {"algorithm": "hmac-sha256", "secret": "name-of-a-secret"}
    add_key(visitor.site, {"id": "k-ring", "sources": ["ring-*"], "valid_until": 1e9} | secret)
    visitor.go("/keys")
    rows = visitor.by("key-row")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(re.compile(r"^valid\s*k-shop"))
    expect(rows.first).to_contain_text("Added by admin-1")
    expect(rows.last).to_contain_text(re.compile(r"^expired\s*k-ring"))
    expect(visitor.page.get_by_text("name-of-a-secret")).to_have_count(0)
    expect(visitor.by("key-revoke")).to_have_count(0)
    visitor.by("keys-search").fill("ring-7")
    expect(rows).to_have_count(1)
    visitor.by("key-blast").click()
    expect(visitor.by("blast-key")).to_have_value("k-ring")
    visitor.by("blast-event").first.click()
    expect(visitor.by("lineage-id")).to_have_value(re.compile(r"^e\d+$"))


def test_an_admin_revokes_a_key(visitor: Visitor) -> None:
    shared = {"algorithm": "ed25519", "public_key": PUBLIC_KEY}
    add_key(visitor.site, {"id": "k-lost", "sources": ["lost-*"]} | shared)
    visitor.login("admin")
    visitor.go("/keys?id=k-lost")
    rows, told = visitor.by("key-row"), visitor.by("revoke-sum")
    expect(rows).to_have_count(1)
    visitor.by("key-revoke").click()
    expect(told).to_contain_text("whatever time the event claims: it is held back.")
    expect(told).to_contain_text("No other valid key speaks for lost-*")
    expect(visitor.by("revoke-taught")).to_contain_text("given no event that names it")
    visitor.by("revoke-reason").fill("Its laptop is lost")
    visitor.by("revoke-after").fill("yesterday")
    expect(visitor.page.get_by_text("must be Unix seconds")).to_be_visible()
    version = visitor.site.version()
    visitor.by("revoke-go").click()
    visitor.by("revoke-after").fill("2026-05-01")
    expect(told).to_contain_text("signed from 2026-05-01 00:00:00 UTC on is refused")
    visitor.by("revoke-after").fill("")
    expect(told).to_contain_text("whatever time the event claims")
    assert visitor.site.version() == version

    add_key(visitor.site, {"id": "k-meanwhile", "sources": ["new-*"]} | shared)
    visitor.by("revoke-go").click()
    expect(visitor.by("conflict")).to_contain_text(f"admin-1 made version {version + 1}")
    assert visitor.site.version() == version + 1
    visitor.by("conflict-reload").click()
    expect(visitor.by("conflict")).to_be_hidden()
    visitor.by("key-revoke").click()
    visitor.by("revoke-go").click()
    expect(visitor.page.get_by_text("Say why")).to_be_visible()
    visitor.by("revoke-reason").fill("Its laptop is lost")
    visitor.by("revoke-go").click()
    expect(rows).to_contain_text("revoked by admin-1")
    expect(rows).to_contain_text("Its laptop is lost")
    expect(visitor.by("key-revoke")).to_have_count(0)
    with visitor.site.api() as client:
        listed = client.get("/v1/keys").json()
    assert listed["version"] == version + 2
    states = {key["id"]: key["state"] for key in listed["keys"]}
    assert (states["k-lost"], states["k-meanwhile"]) == ("revoked", "valid")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/quarantine", "/quarantine/9-1", "/incidents/inc-9",
        f"/lineage?{urlencode({'id': MARKUP})}",
    ],
)  # fmt: skip
def test_what_events_say_is_text(visitor: Visitor, path: str) -> None:
    visitor.site.tell("hostile")
    visitor.login("operator")
    deadline = time.monotonic() + 10
    with visitor.site.api() as client:
        while client.get("/v1/quarantine/events/9-1").status_code != 200:
            assert time.monotonic() < deadline
    visitor.go(path)
    if path.startswith("/lineage"):
        expect(visitor.by("lineage-life")).to_have_count(1)
    expect(visitor.page.get_by_text("<script>window.hurt=1").first).to_be_visible()
    expect(visitor.page.get_by_text("{{ 1+1 }}").first).to_be_visible()
    visitor.page.wait_for_timeout(300)
    assert visitor.page.evaluate("window.hurt") is None


def test_the_light_stays_as_it_was_chosen(visitor: Visitor) -> None:
    visitor.login("viewer")
    visitor.go("/policy")
    body = visitor.page.locator("body")
    expect(body).to_have_class(re.compile("body--light"))
    visitor.by("dark").click()
    expect(body).to_have_class(re.compile("body--dark"))
    visitor.go("/audit")
    expect(body).to_have_class(re.compile("body--dark"))
    expect(visitor.by("audit-row").first).to_be_visible()


@pytest.mark.parametrize("visitor", [{"width": 390, "light": "dark"}], indirect=True)
def test_a_telephone_is_wide_enough(visitor: Visitor) -> None:
    visitor.login("operator")
    visitor.go("/")
    expect(visitor.page.locator("body")).to_have_class(re.compile("body--dark"))
    for path, name in (
        ("/", "mood"), ("/thresholds", "apply"), ("/quarantine", "older"),
        ("/policy", "version-1"), ("/audit", "audit-row"), ("/incidents", "incident-row"),
        ("/incidents/inc-1", "incident-text"), ("/drills", "drill-start"),
        ("/lineage?id=evt-00003", "lineage-life"), ("/keys", "keys-rules"),
    ):  # fmt: skip
        visitor.go(path)
        expect(visitor.by(name).first).to_be_visible()
        width = visitor.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, path


def test_a_session_that_ends_meanwhile_changes_nothing(visitor: Visitor) -> None:
    visitor.login("operator")
    version = visitor.site.version()
    visitor.go("/thresholds")
    visitor.settled()
    token = visitor.page.evaluate(
        "fetch('/v1/session').then(a => a.json()).then(me => fetch('/v1/session', "
        "{method: 'DELETE', headers: {'x-csrf-token': me.csrf}})).then(a => a.status)"
    )
    assert token == 204
    visitor.by("reason").fill("Too late")
    visitor.by("apply").click()
    expect(visitor.by("login-token")).to_be_visible()
    assert visitor.site.version() == version


def test_every_field_and_button_has_a_name(visitor: Visitor) -> None:
    visitor.login("operator")
    for path, name in (
        ("/", "mood"), ("/thresholds", "apply"), ("/quarantine", "older"),
        ("/incidents/inc-2", "incident-text"), ("/drills", "drill-start"),
        ("/blast", "blast-look"), ("/lineage?id=evt-00003", "lineage-life"), ("/keys", "keys"),
    ):  # fmt: skip
        visitor.go(path)
        expect(visitor.by(name)).to_be_visible()
        nameless = visitor.page.evaluate(
            """() => [...document.querySelectorAll('button, input, a[href], [role=slider]')]
            .filter(e => e.offsetParent && !(e.ariaLabel || e.innerText.trim() || e.title
              || e.closest('label') || (e.labels || []).length || e.type === 'checkbox'))
            .map(e => e.outerHTML.slice(0, 120))"""
        )
        assert nameless == [], path
        expect(visitor.page.locator("main, [role=main]")).to_have_count(1)


def test_addresses_of_the_interface_stay_its_own(site: Served) -> None:
    with site.api() as client:
        assert client.get("/v1/nothing").headers["content-type"] == "application/problem+json"
        assert client.get("/nothing").status_code == 404
        page = client.get("/", headers={"accept": "text/html"})
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
