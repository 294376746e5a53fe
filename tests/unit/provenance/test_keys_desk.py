"""The registry over HTTP and in the terminal, on a live policy; and that no secret comes out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from monitor.admin.auth import Auth
from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile
from monitor.cli.app import execute
from monitor.cli.wiring import make_gate
from monitor.config.policy import Policy
from monitor.config.settings import load_settings
from monitor.core.errors import UsageError
from monitor.core.provenance import Outcome
from monitor.gate import Gate, GateConfig
from monitor.provenance.secrets import Secrets, missing
from monitor.runtime.control import PolicyControl
from monitor.state.control import ControlState, Proposal, fold, proposal_row
from tests.unit.admin.fake_server import serving
from tests.unit.provenance.test_provenance_laws import (
    batch,
    ed25519,
    event,
    policy,
)
from tests.unit.runtime.memory_ledger import Log

SECRET = b"the secret that nobody may see, ever"
CODED = base64.b64encode(SECRET).decode()


class Still:
    """As much of a service as a control needs."""

    def __init__(self) -> None:
        self.gate: Any = None

    def submit(self, job: Any) -> Any:
        from concurrent.futures import Future

        future: Future[None] = Future()
        future.set_result(job(self))
        return future


@dataclass
class Site:
    url: str
    control: PolicyControl
    service: Still
    tokens: dict[str, str]
    log: Log

    def client(self, who: str, base: int | None = None) -> httpx.Client:
        found = {"authorization": f"Bearer {self.tokens[who]}"}
        if base is not None:
            found["if-match"] = f'"{base}"'
        return httpx.Client(base_url=self.url, trust_env=False, headers=found, timeout=20)

    def command(self, *words: str) -> int:
        who = ["--url", self.url, "--token", self.tokens["admin"]]
        return execute(["keys", *words, *who])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "shop-secret").write_text(CODED)
    gate = Gate(GateConfig(warmup_events=64, secrets=Secrets(tmp_path / "secrets", {})))
    log, service = Log(), Still()
    control = PolicyControl(log.open, gate, instance="one")
    running: Any = service
    control.begin(running)
    file = TokenFile(tmp_path / "tokens.json")
    tokens = {role.value: file.create(role.value, role) for role in Role}
    desk: Any = SimpleNamespace(policy=control, log=SimpleNamespace(note=lambda entry: None))
    desk.status = dict
    try:
        with serving(desk, Auth(file)) as server:
            yield Site(server.url, control, service, tokens, log)
    finally:
        control.close()


def test_a_keys_life_in_the_terminal(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> Any:
        return json.loads(capsys.readouterr().out)

    old, new = tmp_path / "old.key", tmp_path / "new.key"
    assert execute(["keys", "new", "shop-1", "--out", str(old), "--source", "shop-*"]) == 0
    entry = said()
    (tmp_path / "shop-1.json").write_text(json.dumps(entry))
    assert old.stat().st_mode & 0o077 == 0
    assert execute(["keys", "new", "shop-1", "--out", str(old)]) == 2  # never overwritten
    file, why = str(tmp_path / "shop-1.json"), ["--why", "from May on"]
    assert site.command("add", "--file", file, *why) == 0
    assert site.command("add", "--file", file, *why) == 2
    capsys.readouterr()
    lines = tmp_path / "events.jsonl"
    values = [event(i, "shop-7") for i in range(4)]
    lines.write_bytes(b"".join(value + b"\n" for value in values))
    signing = ["keys", "sign", str(lines), "--key-id"]
    assert execute([*signing, "shop-1", "--key", str(old), "--signed-at", "1700000001.5"]) == 0
    signed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def outcomes(made: list[dict[str, str]]) -> list[str]:
        rows = [
            (value, [(name, text.encode()) for name, text in one.items()])
            for value, one in zip(values, made, strict=True)
        ]
        gate = site.service.gate
        decided, _ = gate.step(gate.start(), batch(rows))
        return [Outcome(int(o)).word for o in decided.provenance]

    site.control.gate_of(2)
    wait_for(site, 2)
    assert outcomes(signed) == ["verified"] * 4
    execute(["keys", "new", "shop-2", "--out", str(new)])
    (tmp_path / "shop-2.json").write_text(json.dumps(said()))
    file = str(tmp_path / "shop-2.json")
    assert site.command("rotate", "shop-1", "--file", file, "--overlap-hours", "1", *why) == 0
    wait_for(site, 3)
    execute([*signing, "shop-2", "--key", str(new)])
    capsys.readouterr()
    assert site.command("revoke", "shop-1", "--yes", "--why", "lost") == 0
    wait_for(site, 4)
    assert outcomes(signed) == ["key_revoked"] * 4
    # Once is enough: the version and the reason stay.
    assert site.command("revoke", "shop-1", "--yes", "--why", "again") == 0
    assert "revoked like that already; policy version 4 still holds" in capsys.readouterr().out
    with site.client("admin", 4) as admin:
        answer = admin.post("/v1/keys/shop-1/revoke", json={"why": "again"})
        assert (answer.status_code, answer.headers["etag"]) == (200, '"4"')
        assert (answer.json()["state"], answer.json()["version"]) == ("unchanged", 4)
    assert site.control.current().version == 4
    assert site.command("rotate", "shop-1", "x", "--public-key", "A" * 43 + "=", *why) == 2
    capsys.readouterr()
    assert site.command("list", "--json") == 0
    listed = {key["id"]: key for key in said()["keys"]}
    assert [listed[name]["state"] for name in ("shop-1", "shop-2")] == ["revoked", "valid"]
    assert listed["shop-2"]["sources"] == ["shop-*"] and listed["shop-1"]["why"] == "lost"
    assert 0 < listed["shop-1"]["valid_until"] - listed["shop-1"]["revoked_at"] < 3601
    assert site.command("list") == 0
    assert "shop-1" in capsys.readouterr().out


def test_a_rollback_says_that_keys_stay_and_makes_no_version_for_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    def propose(base: int, **parts: Any) -> None:
        document = {**site.control.current().policy, **parts}
        site.control.propose(document, base=base, who="ana", why="")

    propose(1, provenance={"keys": [ed25519("k-1")]})
    propose(2, provenance={"keys": [{**ed25519("k-1"), "revoked_at": 1.0}]})
    back = ["policy", "rollback", "2", "--yes", "--why", "w", "--url", site.url]
    back += ["--token", site.tokens["admin"]]
    left = "keys and the rules for sources were left as they are now"
    assert execute(back) == 0
    told = capsys.readouterr().out
    assert "nothing would change by it: version 3 still holds" in told and left in told
    assert site.control.current().version == 3
    propose(3, flag_at=0.2)
    assert execute(back) == 0
    told = capsys.readouterr().out
    assert "version 5 holds now" in told and left in told
    (key,) = site.control.current().policy["provenance"]["keys"]
    assert key["revoked_at"] == 1.0
    back[2] = "5"
    assert execute(back) == 0
    told = capsys.readouterr().out
    assert "version 5 still holds" in told and left not in told


def wait_for(site: Site, version: int) -> None:
    import time

    deadline = time.monotonic() + 20
    while site.service.gate.policy.version != version:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_admins_change_keys_whatever_the_way(site: Site) -> None:
    key = ed25519("k-1")
    with site.client("operator", 1) as operator, site.client("admin", 1) as admin:
        now = operator.get("/v1/policy").json()["policy"]
        changed = {**now, "provenance": {**now["provenance"], "keys": [key]}}
        body = {"policy": changed, "why": "mine"}
        assert operator.post("/v1/keys", json={"key": key, "why": "mine"}).status_code == 403
        assert operator.put("/v1/policy", json=body).status_code == 403
        assert operator.put(
            "/v1/policy", json={**body, "policy": {**now, "flag_at": 0.02}}
        ).is_success
        assert admin.post("/v1/keys", json={"key": key, "why": "x"}).status_code == 412
    with site.client("admin", 2) as admin:
        assert admin.post("/v1/keys", json={"key": key, "why": "x"}).is_success
        assert admin.post("/v1/keys", json={"key": key, "why": "x"}).status_code == 412
    with site.client("operator", 3) as operator:
        # Leaving the part out would take the keys away.
        assert (
            operator.put("/v1/policy", json={"policy": {"flag_at": 0.03}, "why": "x"}).status_code
            == 403
        )
    with site.client("admin", 3) as admin:
        assert admin.post("/v1/keys/k-1/revoke", json={"why": "stolen"}).is_success
        assert admin.post("/v1/keys/k-9/revoke", json={"why": "stolen"}).status_code == 412
    with site.client("admin", 4) as admin:
        assert admin.post("/v1/keys/k-9/revoke", json={"why": "stolen"}).status_code == 404


def test_a_revoked_key_stays_revoked(site: Site) -> None:
    def propose(base: int, **part: Any) -> None:
        document = {**site.control.current().policy, "provenance": part}
        site.control.propose(document, base=base, who="ana", why="")

    key, other = ed25519("k-1"), ed25519("k-2")
    propose(1, keys=[key])
    revoked = {**key, "revoked_at": 1.0, "revoked_after_ts": 500.0}
    propose(2, keys=[revoked, other])
    for worse in (
        key,
        {**revoked, "revoked_after_ts": 501.0},
        {**revoked, **ed25519("k-2", id="k-1")},
    ):
        with pytest.raises(UsageError, match="revoked"):
            propose(3, keys=[worse, other])
    propose(3, keys=[{**revoked, "revoked_after_ts": None}, other])
    site.control.rollback(2, base=4, who="ana", why="")
    keys = site.control.current().policy["provenance"]["keys"]
    assert [(k["id"], k["revoked_at"], k["revoked_after_ts"]) for k in keys] == [
        ("k-1", 1.0, None),
        ("k-2", None, None),
    ]
    found = site.control.diff(1, 3)
    assert {d.path for d in found} == {"provenance.keys[k-1]", "provenance.keys[k-2]"}


def test_no_secret_leaves_the_replica(
    site: Site, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    key = {"id": "h-1", "algorithm": "hmac-sha256", "secret": "shop-secret"}
    pasted = {"id": "h-2", "algorithm": "hmac-sha256", "secret": CODED}
    wrong = {"id": "h-3", "algorithm": "ed25519", "public_key": CODED}
    answers = []
    with site.client("admin", 1) as admin:
        for bad in (pasted, {**pasted, "secret": SECRET.hex()}, wrong, {**key, "key": CODED}):
            answers.append(admin.post("/v1/keys", json={"key": bad, "why": "x"}))
            document = {"provenance": {"keys": [bad]}}
            answers.append(admin.put("/v1/policy", json={"policy": document, "why": "x"}))
        assert all(answer.status_code == 422 for answer in answers)
        assert admin.post("/v1/keys", json={"key": key, "why": "x"}).is_success
        wait_for(site, 2)
        for path in ("/v1/keys", "/v1/policy", "/v1/policy/history", "/v1/status", "/openapi.json"):
            answers.append(admin.get(path))
        answers.append(admin.get("/metrics"))
    value = event(1)
    from monitor.provenance.signing import signer

    signed = [("key-id", b"h-1"), ("signature", signer("hmac-sha256", SECRET)(value))]
    gate = site.service.gate
    decided, state = gate.step(gate.start(), batch([(value, signed), (value, [signed[0]])]))
    assert decided.provenance.tolist() == [Outcome.VERIFIED, Outcome.SIGNATURE_MALFORMED]
    seen = [answer.text for answer in answers] + [repr(gate.config), repr(state)]
    seen += [str(row) for row in site.log.rows] + [str(r) for r in decided.records]
    captured = capfd.readouterr()
    seen += [captured.out, captured.err, *map(str, missing(gate.policy, Secrets()))]
    assert len(seen) > 20 and "h-1" in "".join(seen)
    for text in seen:
        assert CODED not in text and SECRET.decode() not in text and SECRET.hex() not in text


def test_secrets_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").write_text(CODED)
    (tmp_path / "inside" / "short").write_text("YWJj")
    (tmp_path / "inside" / "good").write_text(CODED + "\n")
    found = Secrets(tmp_path / "inside", {"POISONING_MONITOR_SECRET_FROM_ENV": CODED})
    assert (found("good"), found("from.env")) == (SECRET, SECRET)
    for name in ("short", "missing", "../outside", "..", "", str(tmp_path / "outside"), "inside"):
        assert found(name) is None
    options = {"provenance.secret_dir": str(tmp_path / "inside")}
    secrets = make_gate(load_settings(environ={}, options=options), local=False).config.secrets
    assert (secrets("good"), secrets("missing")) == (SECRET, None)
    key = {"id": "h-1", "algorithm": "hmac-sha256", "secret": "good"}
    assert not missing(policy(key), found)
    (told,) = missing(policy({**key, "secret": "missing"}), found)
    assert "provenance.secret_dir" in told


def test_older_monitors_can_still_read_what_says_nothing_of_provenance() -> None:
    def stored(wanted: Policy) -> dict[str, Any]:
        made = Proposal(
            proposal="p", base=0, kind="start", who="m", why="", when=0.0,
            policy=wanted.model_dump(mode="json"),
        )  # fmt: skip
        key, value = proposal_row(made)
        after = fold(ControlState(), [(key, value)])
        assert after.current == wanted.model_copy(update={"version": 1})
        found: dict[str, Any] = json.loads(value or b"")["policy"]
        return found

    assert "provenance" not in stored(Policy())
    assert stored(policy(ed25519("k-1")))["provenance"]["keys"][0]["id"] == "k-1"


@pytest.mark.parametrize(
    ("bad", "because"),
    [
        ({"public_key": None}, "needs public_key"),
        ({"public_key": "QUJD"}, "3 bytes"),
        ({"public_key": "%"}, "base64"),
        ({"secret": "s"}, "has no secret"),
        ({"algorithm": "rsa"}, "ed25519"),
        ({"id": "a b"}, "pattern"),
        ({"valid_from": 5.0, "valid_until": 5.0}, "before"),
        ({"revoked_after_ts": 5.0}, "needs revoked_at"),
        ({"sources": []}, "at least 1"),
    ],
)
def test_keys_that_make_no_sense_are_refused(bad: dict[str, Any], because: str) -> None:
    with pytest.raises(ValueError, match=because):
        policy({**ed25519("k-1"), **bad})
