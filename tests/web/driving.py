"""An operator's quarter of an hour, driven in a real browser against a running service."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

SMALL, LARGE = 1.0, 60.0


@dataclass
class Stage:
    """What the drive plays on.

    ``urls`` are the replicas' addresses, the first of which the operator visits; ``attack`` lets
    the poisoned part of the stream come; ``learned`` is what the learner's topic or file holds.
    """

    urls: Sequence[str]
    token: str
    attack: Callable[[], None]
    learned: Callable[[], list[bytes]]

    def api(self, number: int = 0) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.urls[number], headers=headers, timeout=30.0)

    def versions(self) -> list[int]:
        found = []
        for number in range(len(self.urls)):
            with self.api(number) as client:
                found.append(client.get("/v1/status").json()["policy_version"])
        return found


def until(condition: Callable[[], Any], seconds: float = LARGE) -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not come"
        time.sleep(0.05)
    return time.monotonic() - began


class Hands:
    """What hands do on one page of the console at ``url``."""

    def __init__(self, page: Any, url: str, expect: Any) -> None:
        self.page, self.url, self.expect = page, url, expect

    def by(self, name: str) -> Any:
        return self.page.locator(f'[data-testid="{name}"]')

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def rows(self) -> Any:
        return self.page.locator('[data-testid^="row-"]')

    def number(self, name: str) -> int:
        return int(re.sub(r"[^\d]", "", self.by(name).inner_text()) or -1)

    def log_in(self, token: str) -> None:
        self.go("/login")
        self.by("login-token").fill(token)
        self.by("login-submit").click()
        self.expect(self.by("mood")).to_be_visible()

    def settled(self) -> None:
        """The what-if has answered."""
        self.expect(self.by("now-quarantine")).not_to_have_text("–")
        self.expect(self.by("whatif")).not_to_have_class(re.compile("stale"))

    def drag(self, line: str, pixels: int) -> None:
        """Drag a line by mouse, in steps as a hand does."""
        box = self.by(f"line-{line}").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for step in range(1, 9):
            self.page.mouse.move(x + pixels * step / 8, y)
        self.page.mouse.up()
        self._still()

    def _still(self) -> None:
        """What was dragged has arrived: on a busy machine the last steps come late."""
        fields = self.page.get_by_label("(per cent)")
        seen: list[list[str]] = []
        for _ in range(40):
            seen.append([field.input_value() for field in fields.all()])
            if len(seen) > 2 and seen[-3:] == [seen[-1]] * 3:
                return
            self.page.wait_for_timeout(300)
        raise AssertionError(f"still moving: {seen[-3:]}")


class Operator(Hands):
    """The operator of a stage."""

    def __init__(self, page: Any, stage: Stage, expect: Any) -> None:
        super().__init__(page, stage.urls[0], expect)
        self.stage = stage


def drive(stage: Stage, page: Any, expect: Any) -> dict[str, float]:
    """The whole story; how long the replicas took to report the changed policy."""
    operator = Operator(page, stage, expect)
    operator.log_in(stage.token)
    # What a backlog left behind has to fall out of the last minute first.
    expect(operator.by("mood-title")).to_have_text("All quiet", timeout=2 * LARGE * 1000)
    stage.attack()
    expect(operator.by("mood-title")).to_have_text("Attack likely", timeout=LARGE * 1000)
    seconds = _lower_the_threshold(operator)
    released = _release_three(operator)
    confirmed = _confirm_the_rest_of_a_source(operator)
    _roll_back(operator)
    _exactly_once(stage, released)
    _told_by_the_trail(operator)
    return {"report_seconds": seconds, "confirmed": confirmed}


def _lower_the_threshold(operator: Operator) -> float:
    stage, expect = operator.stage, operator.expect
    version = max(stage.versions())
    operator.go("/thresholds")
    operator.settled()
    held = operator.number("then-quarantine")
    operator.drag("quarantine", -120)
    expect(operator.by("then-quarantine")).not_to_have_text(f"{held:,}")
    operator.settled()
    assert operator.number("then-quarantine") > held
    operator.by("reason").fill("An attack is on: hold more back")
    operator.by("apply").click()
    expect(operator.by("apply-state")).to_contain_text(f"Version {version + 1}")
    seconds = until(lambda: set(stage.versions()) == {version + 1}, 10.0)
    many = len(stage.urls)
    expect(operator.by("apply-state")).to_contain_text(f"{many} of {many} replicas report it")
    return seconds


def _release_three(operator: Operator) -> list[str]:
    expect = operator.expect
    operator.go("/quarantine?status=open")
    rows = operator.rows()
    expect(rows.nth(3)).to_be_visible()
    keys = [row.get_attribute("data-key") for row in rows.all()[:3]]
    for key in keys:
        operator.by(f"select-{key}").click()
    expect(operator.by("selected")).to_have_text("3 selected")
    operator.by("release").click()
    expect(operator.by("dry-run-sum")).to_contain_text("3 would be released")
    operator.by("review-reason").fill("Known good")
    operator.by("review-go").click()
    expect(operator.page.get_by_text("3 released.")).to_be_visible(timeout=LARGE * 1000)
    return keys


def _confirm_the_rest_of_a_source(operator: Operator) -> int:
    expect, stage = operator.expect, operator.stage
    with stage.api() as client:
        counts = client.get("/v1/quarantine/counts", params={"status": "open"}).json()
    by_source = counts["source"]
    source = max(by_source, key=by_source.get)
    operator.go(f"/quarantine?status=open&source={source}")
    expect(operator.rows().first).to_contain_text(source)
    operator.by("select-all").click()
    operator.by("confirm").click()
    expect(operator.by("dry-run-sum")).to_contain_text("would be confirmed")
    operator.by("review-reason").fill("The ring")
    operator.by("review-go").click()
    expect(operator.page.get_by_text("Nothing fits these filters.")).to_be_visible()
    with stage.api() as client:
        query = {"status": "confirmed", "source": source}
        return int(client.get("/v1/quarantine", params=query).json()["total"])


def _roll_back(operator: Operator) -> None:
    expect, stage = operator.expect, operator.stage
    operator.go("/policy")
    operator.by("rollback-1").click()
    expect(operator.by("rollback-diff")).to_contain_text("quarantine_at")
    operator.by("rollback-reason").fill("Back to what we promised")
    operator.by("rollback-go").click()
    expect(operator.page.get_by_text("Back to what we promised").first).to_be_visible()
    with stage.api() as client:
        policy = client.get("/v1/policy").json()
    assert policy["kind"] == "rollback"
    until(lambda: set(stage.versions()) == {policy["version"]}, 10.0)


def _exactly_once(stage: Stage, keys: Sequence[str]) -> None:
    values = []
    with stage.api() as client:
        for key in keys:
            event = client.get(f"/v1/quarantine/events/{key}").json()
            assert event["status"] == "released"
            values.append(event["event_id"])

    def seen() -> list[int]:
        ids = [orjson.loads(line)["id"] for line in stage.learned()]
        return [ids.count(value) for value in values]

    until(lambda: min(seen()) >= 1)
    time.sleep(SMALL)
    assert seen() == [1, 1, 1]


def _told_by_the_trail(operator: Operator) -> None:
    operator.go("/audit")
    operator.expect(operator.by("audit-row").first).to_be_visible()
    trail = operator.page.locator("body").inner_text()
    for said in (
        "An attack is on: hold more back",
        "Known good",
        "The ring",
        "Back to what we promised",
        "login",
    ):
        assert said in trail, said
