"""Tokens at rest, and the pause after failed logins."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from monitor.admin.lockout import MOST_ADDRESSES, MOST_NOTES, Lockout
from monitor.admin.people import Role
from monitor.admin.session import Sessions
from monitor.admin.tokens import TokenFile
from monitor.core.errors import StateError, UsageError


def test_a_token_is_stored_hashed_and_for_its_owner_only(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "new" / "tokens.json")
    assert file.tokens() == ()
    text = file.create("ana", Role.OPERATOR)
    assert len(text) > 40 and text not in file.path.read_text()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    found = file.find(text)
    assert found is not None and (found.name, found.role) == ("ana", "operator")
    assert file.find(text + "x") is file.find("") is None
    assert file.by_id(found.id) == found
    assert found.id not in text


def test_secrets_are_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By :func:`hmac.compare_digest` alone, and all tokens whichever is the right one."""
    file = TokenFile(tmp_path / "tokens.json")
    texts = [file.create(name, Role.VIEWER) for name in "abc"]
    compared: list[bool] = []

    def compare(one: str | bytes, other: str | bytes) -> bool:
        compared.append(one == other)
        return compared[-1]

    monkeypatch.setattr("hmac.compare_digest", compare)
    for text, found in ((texts[0], "a"), (texts[2], "c"), ("wrong", None)):
        compared.clear()
        token = file.find(text)
        assert (token.name if token else None) == found
        assert len(compared) == 3 and compared.count(True) == (found is not None)
    # What the comparison says counts, and nothing beside it.
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: True)
    assert file.find("wrong") is not None and Sessions.same("a", "b")
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: False)
    assert file.find(texts[0]) is None and not Sessions.same("a", "a")


def test_another_process_s_changes_are_seen(tmp_path: Path) -> None:
    mine, other = (TokenFile(tmp_path / "tokens.json") for _ in range(2))
    text = other.create("ben", Role.VIEWER, expires_at=5e9)
    assert mine.find(text) is not None
    other.revoke("ben")
    assert mine.find(text) is None
    with pytest.raises(UsageError, match="no token named 'ben'"):
        other.revoke("ben")


def test_many_at_once_lose_none(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"

    def make(i: int) -> None:
        TokenFile(path).create(f"t{i}", Role.VIEWER)

    threads = [threading.Thread(target=make, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in TokenFile(path).tokens()} == {f"t{i}" for i in range(12)}


@pytest.mark.parametrize("name", ["", "two words", "-x", "a/b", "é", "x" * 65, "local", "monitor"])
def test_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    with pytest.raises(UsageError, match="name"):
        file.create(name, Role.VIEWER)
    assert not file.path.exists()


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    first = file.create("ana", Role.VIEWER)
    with pytest.raises(UsageError, match="revoke it first"):
        file.create("ana", Role.ADMIN)
    assert file.find(first) is not None and len(file.tokens()) == 1


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2, "tokens": []}', '{"format": 1, "tokens": [{"name": "a"}]}'],
)
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StateError, match="is not a file of tokens"):
        TokenFile(path).find("x")


def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    file.create("ana", Role.ADMIN)
    file.path.chmod(0o666)
    with pytest.raises(StateError, match="chmod go-w"):
        TokenFile(file.path).tokens()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lockout_begins_ends_and_is_by_address() -> None:
    clock = Clock()
    lockout = Lockout(3, 60.0, clock)
    assert [lockout.failed("192.0.2.1") for _ in range(3)] == [False, False, True]
    assert lockout.wait_seconds("192.0.2.1") == 60.0
    assert lockout.wait_seconds("192.0.2.2") == 0.0
    clock.now += 59.0
    assert lockout.wait_seconds("192.0.2.1") == 1.0
    clock.now += 1.0
    assert lockout.wait_seconds("192.0.2.1") == 0.0
    assert not lockout.failed("192.0.2.1")


def test_failures_long_ago_and_before_a_success_do_not_count() -> None:
    clock = Clock()
    lockout = Lockout(2, 60.0, clock)
    assert not lockout.failed("a")
    clock.now += 61.0
    assert not lockout.failed("a")
    lockout.succeeded("a")
    assert not lockout.failed("a")
    assert lockout.failed("a")


def test_whoever_has_an_ipv6_network_has_one_try() -> None:
    lockout = Lockout(2, 60.0, Clock())
    lockout.failed("2001:db8::1")
    assert lockout.failed("2001:db8::ffff:1")
    assert lockout.wait_seconds("2001:db8:0:1::1") == 0.0


def test_memory_and_notes_are_bounded() -> None:
    clock = Clock()
    lockout = Lockout(2, 60.0, clock)
    for i in range(MOST_ADDRESSES + 500):
        lockout.failed(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}")
    assert len(lockout._known) == MOST_ADDRESSES
    assert sum(lockout.worth_a_note() for _ in range(500)) == MOST_NOTES
    clock.now += 60.0
    assert lockout.worth_a_note()
