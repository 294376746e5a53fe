"""The live policy on running services: changed by people, applied by every replica, kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.config.policy import Policy
from monitor.core.desk import ConflictError, ForbiddenError, MissingError
from monitor.core.errors import StateError, UsageError
from monitor.core.types import Mode
from monitor.gate import Gate, GateConfig
from monitor.runtime.control import PolicyControl
from monitor.runtime.recent_events import RecentEvents
from monitor.runtime.service import Service
from monitor.runtime.status import Status
from monitor.state.control import Proposal, proposal_row
from monitor.transport.local import FollowFile, LocalTransport
from tests.unit.runtime.memory_ledger import Log
from tests.unit.test_gate_steps import values

CONFIG = GateConfig(warmup_events=100, local=True)
SOON = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """A service on a file that grows, with its control."""

    def __init__(self, folder: Path, log: Log, name: str = "one", **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.name = name
        self.input, self.out = folder / "in.jsonl", folder / "out"
        self.input.touch()
        self.status, self.notices = Status(), list[str]()
        gate = Gate(CONFIG, options.pop("policy", Policy()))
        self.recent = RecentEvents(gate.detectors, 500)
        self.control = PolicyControl(
            log.open,
            gate,
            instance=name,
            recent=self.recent,
            told=[self.status.use],
            notice=self.notices.append,
            **options,
        )
        self.transport = LocalTransport(
            FollowFile(self.input), self.out, accepted=folder / "accepted.jsonl", identity="x"
        )
        self.service = Service(
            gate,
            self.transport,
            observers=(self.status, self.recent),
            on_status=self.status,
            batch_events=100,
            linger_seconds=0.02,
            digests=True,
            policies=self.control,
        )
        self.stop = threading.Event()
        self.failed: list[BaseException] = []

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        wait(lambda: self.name in versions(self.control) or bool(self.failed))

    def _run(self) -> None:
        try:
            self.service.run(self.stop)
        except BaseException as error:
            self.failed.append(error)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(30)
        self.control.close()

    def feed(self, lines: list[bytes]) -> None:
        with self.input.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))

    def decided(self) -> list[dict[str, Any]]:
        path = self.out / "decisions.jsonl"
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@contextmanager
def running(*replicas: Replica) -> Iterator[None]:
    for replica in replicas:
        replica.start()
    try:
        yield
    finally:
        for replica in replicas:
            replica.end()
        assert not [error for replica in replicas for error in replica.failed]


def wait(until: Callable[[], bool], seconds: float = SOON) -> float:
    began = time.monotonic()
    while not until():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


def changed(control: PolicyControl, **changes: Any) -> dict[str, Any]:
    return {**control.current().policy, **changes}


def versions(control: PolicyControl) -> dict[str, int]:
    try:
        return {said.instance: said.version for said in control.applied()}
    except StateError:
        return {}


def test_a_change_reaches_both_replicas_and_names_its_decisions(tmp_path: Path) -> None:
    log = Log()
    one, two = Replica(tmp_path / "a", log), Replica(tmp_path / "b", log, "two")
    with running(one, two):
        for replica in (one, two):
            replica.feed(values(200))
        wait(lambda: all(r.status.snapshot()["events"] == 200 for r in (one, two)))
        assert [c.kind for c in one.control.history()] == ["start"]
        made = one.control.propose(
            changed(one.control, flag_at=0.05, mode="alert"), base=1, who="ana", why="look closer"
        )
        assert (made.version, made.state, made.policy["flag_at"]) == (2, "applied", 0.05)
        assert wait(lambda: versions(two.control) == {"one": 2, "two": 2}) < 2.0
        for replica in (one, two):
            assert replica.status.snapshot()["policy_version"] == 2  # without another event
            assert replica.service.gate.policy.mode is Mode.ALERT  # type: ignore[attr-defined]
            replica.feed(values(100, seed=5))
        wait(lambda: all(r.status.snapshot()["events"] == 300 for r in (one, two)))
        difference = two.control.diff(1, 2)
        assert {d.path: (d.before, d.after) for d in difference} == {
            "flag_at": (0.01, 0.05),
            "mode": ("enforce", "alert"),
        }
    for replica in (one, two):
        named = [record["policy_version"] for record in replica.decided()]
        assert named == [1] * 200 + [2] * 100
        assert {r["mode"] for r in replica.decided()[200:]} == {"alert"}


def test_rollback_makes_a_new_version_and_tells_who_and_why(tmp_path: Path) -> None:
    log = Log()
    replica = Replica(tmp_path / "a", log)
    with running(replica):
        control = replica.control
        control.propose(changed(control, flag_at=0.2), base=1, who="ana", why="a try")
        back = control.rollback(1, base=2, who="ben", why="too much")
        assert (back.version, back.kind, back.policy["flag_at"]) == (3, "rollback", 0.01)
        assert control.diff(1, 3) == []
        told = [(c.version, c.who, c.why) for c in control.history()]
        assert told == [
            (3, "ben", "too much"),
            (2, "ana", "a try"),
            (1, "monitor", "the settings' policy"),
        ]
        assert [c.version for c in control.history(limit=1, before=3)] == [2]
        with pytest.raises(MissingError, match="no version 9"):
            control.rollback(9, base=3, who="ben", why="")


def test_bad_input_says_what_is_wrong_and_changes_nothing(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "a", Log())
    with pytest.raises(StateError, match="not read yet"):
        replica.control.current()
    with running(replica):
        control = replica.control
        for change, says in [
            ({"flag_at": 1.5}, "flag_at: must be less than 1, not 1.5"),
            ({"detectors": {"undoo": {}}}, "did you mean 'undo'"),
            ({"budget": {"magic": 1.0}}, "unknown family 'magic'"),
            ({"flagat": 0.1}, "did you mean 'flag_at'"),
            (
                {"overrides": [{"id": "a", "scope": "label", "match": 1.5, "mode": "alert"}]},
                "match",
            ),
        ]:
            with pytest.raises(UsageError) as error:
                control.propose(changed(control, **change), base=1, who="ana", why="")
            assert says in str(error.value)
        control.propose(changed(control, flag_at=0.2), base=1, who="ana", why="")
        with pytest.raises(ConflictError, match="ana made version 2"):
            control.propose(changed(control, flag_at=0.3), base=1, who="ben", why="")
        with pytest.raises(ConflictError, match="no version 7 yet"):
            control.propose(changed(control, flag_at=0.3), base=7, who="ben", why="")
        with pytest.raises(UsageError, match="at most"):
            control.propose(changed(control, flag_at=0.3), base=2, who="ben", why="x" * 2000)
        assert [c.version for c in control.history()] == [2, 1]


def test_of_two_at_the_same_time_one_gets_a_conflict(tmp_path: Path) -> None:
    log = Log()
    replicas = Replica(tmp_path / "a", log), Replica(tmp_path / "b", log, "two")
    with running(*replicas):
        for base in range(1, 6):
            came: list[str] = []
            gate = threading.Barrier(2)

            def go(control: PolicyControl, share: float, base: int = base) -> None:
                gate.wait(5)  # noqa: B023 - both threads of this turn
                try:
                    control.propose(
                        changed(control, flag_at=share), base=base, who=f"{share}", why=""
                    )
                except ConflictError:
                    came.append("conflict")  # noqa: B023
                else:
                    came.append("applied")  # noqa: B023

            threads = [
                threading.Thread(target=go, args=(replica.control, 0.1 * base + 0.01 * i))
                for i, replica in enumerate(replicas)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            assert sorted(came) == ["applied", "conflict"]
            wait(lambda: len({c.control.current().proposal for c in replicas}) == 1)
            assert replicas[1].control.current().version == base + 1


def test_a_stored_policy_wins_over_the_settings_at_the_next_start(tmp_path: Path) -> None:
    log = Log()
    first = Replica(tmp_path / "a", log)
    with running(first):
        first.control.propose(changed(first.control, flag_at=0.2), base=1, who="ana", why="")
    second = Replica(tmp_path / "a", log, policy=Policy(flag_at=0.03))
    with running(second):
        assert second.service.gate.policy.flag_at == 0.2  # type: ignore[attr-defined]
        assert "version 2, holds" in second.notices[0]
        second.feed(values(60))
        wait(lambda: second.status.snapshot()["events"] == 60)
    assert {record["policy_version"] for record in second.decided()} == {2}


def test_a_crash_after_a_change_recovers_under_the_recorded_version(tmp_path: Path) -> None:
    """The last batches before the crash were judged under version 2, version 3 holds after it."""
    log = Log()
    first = Replica(tmp_path / "a", log)
    with running(first):
        first.feed(values(400))
        wait(lambda: first.status.snapshot()["events"] == 400)
        control = first.control
        # It learns from half of the events now: judged under another policy the state differs.
        control.propose(changed(control, learning_speed=0.5), base=1, who="ana", why="")
        wait(lambda: versions(control) == {"one": 2})
        first.feed(values(300, seed=7))
        wait(lambda: first.status.snapshot()["events"] == 700)
        held = dict(first.service._held)
        control.propose(changed(control, learning_speed=1.0), base=2, who="ana", why="")
        wait(lambda: versions(control) == {"one": 3})
    assert held[0].stamp.policy_version == 2 and len(held[0].stamp.boundaries) > 0
    second = Replica(tmp_path / "a", log)
    with running(second):
        wait(lambda: 0 in second.service._held)
        assert second.service.gate.policy.version == 3  # type: ignore[attr-defined]
        restored = second.service._held[0]
        gate = Gate(CONFIG)
        assert gate.digest(restored.state) == gate.digest(held[0].state)
        second.feed(values(50, seed=8))
        wait(lambda: second.status.snapshot()["events"] == 50)
    assert not [text for text in second.notices if "learned again under" in text]
    assert [r["policy_version"] for r in second.decided()] == [1] * 400 + [2] * 300 + [3] * 50


def test_what_expires_becomes_a_new_version_once(tmp_path: Path) -> None:
    log, clock = Log(), Clock()
    replicas = [Replica(tmp_path / n, log, n, clock=clock) for n in ("one", "two")]
    with running(*replicas):
        control = replicas[0].control
        deny = [
            {"source": "a", "expires_at": 2_000.0, "why": ""},
            {"source": "b", "expires_at": None, "why": ""},
        ]
        control.propose(changed(control, deny=deny), base=1, who="ana", why="")
        time.sleep(0.5)
        assert control.current().version == 2
        clock.now = 2_000.0
        wait(lambda: control.current().version == 3)
        last = control.current()
        assert (last.kind, last.who, last.why) == ("expiry", "monitor", "expired: deny[a]")
        assert [entry["source"] for entry in last.policy["deny"]] == ["b"]
        time.sleep(0.5)
        assert control.current().version == 3


def test_two_persons(tmp_path: Path) -> None:
    log = Log()
    replica = Replica(tmp_path / "a", log, two_person=True)
    with running(replica):
        control = replica.control
        asked = control.propose(changed(control, flag_at=0.2), base=1, who="ana", why="please")
        assert (asked.state, asked.policy["flag_at"], control.current().version) == (
            *("waiting", 0.2),
            1,
        )
        assert [c.proposal for c in control.waiting()] == [asked.proposal]
        with pytest.raises(ForbiddenError, match="somebody else"):
            control.approve(asked.proposal, who="ana")
        with pytest.raises(MissingError):
            control.approve("nothing", who="ben")
        done = control.approve(asked.proposal, who="ben")
        assert (done.state, done.version, done.who, done.approved_by) == (
            "applied",
            2,
            "ana",
            "ben",
        )
        assert control.current().approved_by == "ben" and not control.waiting()
        with pytest.raises(ConflictError, match="applied"):
            control.approve(asked.proposal, who="cleo")

        to_alert = control.propose(changed(control, mode="alert"), base=2, who="ana", why="")
        assert to_alert.state == "waiting"  # it would cease to hold
        gone = control.reject(to_alert.proposal, who="ben", why="not now")
        assert (gone.state, gone.approved_by) == ("rejected", "ben") and not control.waiting()

        other = control.propose(changed(control, flag_at=0.3), base=2, who="ana", why="")
        control.confirmed({"acct-1": 3}, "ben", "poison")  # a verdict waits for nobody
        assert control.current().policy["confirmed"] == {"acct-1": 3}
        with pytest.raises(ConflictError, match="overtaken"):
            control.approve(other.proposal, who="ben")
        wait(lambda: versions(control) == {"one": 3})
        assert replica.service.gate.policy.flag_at == 0.2  # type: ignore[attr-defined]


def test_confirmed_counts_add_up(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "a", Log())
    with running(replica):
        replica.control.confirmed({"acct-1": 3, "acct-2": 1}, "ana", "ring")
        replica.control.confirmed({"acct-1": 4, "": 9}, "ben", "again")
        last = replica.control.current()
        assert last.policy["confirmed"] == {"acct-1": 7, "acct-2": 1}
        assert (last.kind, last.who, last.why) == ("review", "ben", "again")


def test_a_ledger_that_fails_is_followed_again(tmp_path: Path) -> None:
    log = Log()
    one, two = Replica(tmp_path / "a", log), Replica(tmp_path / "b", log, "two")
    with running(one, two):
        log.down = True
        wait(lambda: any("cannot be followed" in text for text in one.notices))
        one.feed(values(60))  # events go on
        wait(lambda: one.status.snapshot()["events"] == 60)
        log.down = False
        done = one.control.propose(changed(one.control, flag_at=0.2), base=1, who="ana", why="")
        assert done.version == 2
        wait(lambda: versions(two.control) == {"one": 2, "two": 2})


def test_damaged_records_are_said_and_left_out(tmp_path: Path) -> None:
    log = Log()
    replica = Replica(tmp_path / "a", log)
    with running(replica):
        newer = proposal_row(
            Proposal(
                proposal="p", base=1, kind="edit", who="x", why="", when=0.0, policy={}, format=9
            )
        )
        log.open().append([(b"policy/2/x", b"{damaged"), newer, (b"riddle/1", b'{"format":1}')])
        wait(lambda: len(replica.notices) == 3)
        assert "damaged" in replica.notices[0] and "format 9" in replica.notices[1]
        replica.control.propose(changed(replica.control, flag_at=0.2), base=1, who="a", why="")
        assert replica.control.current().version == 2


def test_whatif_and_risks_look_back_on_recent_events(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "a", Log())
    with running(replica):
        replica.feed(values(900))
        wait(lambda: replica.status.snapshot()["events"] == 900)
        control = replica.control
        same = control.whatif(control.current().policy)
        assert same.events == 500 and same.n_flips == 0 and same.before == same.after
        wide = control.whatif(changed(control, flag_at=0.5, quarantine_at=0.2))
        assert wide.after["quarantine"] > same.after["quarantine"]
        assert (
            wide.n_flips == sum(abs(wide.after[w] - wide.before[w]) for w in ("flag", "quarantine"))
            or wide.n_flips > 0
        )
        assert wide.promised == {"flag": 0.5, "quarantine": 0.2}
        risks = control.risks(bins=20)
        assert sum(map(sum, risks["counts"].values())) == 500 and len(risks["edges"]) == 21
        assert control.current().version == 1
        denied = control.whatif(
            changed(control, deny=[{"source": replica.decided()[-1]["source"]}])
        )
        assert denied.n_flips > 0 and denied.after["quarantine"] > 0
