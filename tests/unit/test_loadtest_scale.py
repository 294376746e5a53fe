"""The scaling script's arithmetic; the measurements themselves need a broker and time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest import scale, scaling_figures
from loadtest.scale_costs import flatness, lengths, marks, one_stream
from loadtest.scale_exchange import exchange_costs
from loadtest.scale_latency import SETTLE_SECONDS, Seen, percentiles
from loadtest.speed_kafka import Place, Sample, rates

EXCHANGE = {
    "merging_seconds": {"1": 0.01, "7": 0.07},
    "merging_seconds_each": 0.01,
    "storing_with_view_seconds": 0.03,
    "stored_with_view_megabytes": 4.0,
    "stored_megabytes": 2.0,
    "reading_seconds": 0.02,
    "state_megabytes": 5.0,
}


def row(processes: int, cpu_us: float) -> dict[str, Any]:
    return {"processes": processes, "cpu_us": cpu_us, "broker_cpu_us": 20.0}


def test_only_what_comes_between_the_marks_is_counted() -> None:
    samples = [
        Sample(0.0, 0, (1.0, 1.0), 5.0),
        Sample(1.0, 1_000, (1.5, 1.5), 5.1),
        Sample(2.0, 2_000, (2.0, 1.7), 5.2),
        Sample(4.0, 5_000, (3.0, 2.2), 5.5),
        Sample(9.0, 5_000, (8.0, 8.0), 9.0),
    ]
    found = rates(samples, 1_500, broker=True)
    assert found["events"] == 3_000
    assert found["events_per_second"] == 1_500
    assert found["cpu_us"] == pytest.approx(500.0)
    assert found["cpu_share"] == pytest.approx([0.5, 0.25])
    assert found["broker_cpu_us"] == pytest.approx(100.0)
    assert rates(samples, 1_500, broker=False)["broker_cpu_us"] is None
    with pytest.raises(ValueError, match="more events"):
        rates(samples, 5_000, broker=False)


def test_a_service_is_started_with_the_defaults_and_what_was_asked_for() -> None:
    place = Place("broker:1", 4, mark="m")
    settings = place.settings("p0", {"batch": {"max_events": 7}, "kafka": {"partitions": 2}})
    assert "client" not in settings["kafka"]
    assert settings["kafka"]["instance"] == "p0"
    assert settings["kafka"]["partitions"] == 2
    assert settings["batch"] == {"max_events": 7}
    assert Place("broker:1", 4, "confluent").settings("p0")["kafka"]["client"] == "confluent"


def test_findings_are_kept_and_not_measured_again(tmp_path: Path) -> None:
    file, setup = tmp_path / "scale.json", {"batch": 1}
    first = scale.Findings(file, setup, resume=True)
    assert first.keep("costs", "10", lambda: [1.5]) == [1.5]
    again = scale.Findings(file, setup, resume=True)
    assert again.keep("costs", "10", lambda: pytest.fail("measured again")) == [1.5]
    other = scale.Findings(file, {"batch": 2}, resume=True)
    assert other.keep("costs", "10", lambda: [2.5]) == [2.5]
    assert json.loads(file.read_text())["costs"] == {"10": [2.5]}


def test_speed_ups_by_the_clock_and_by_cpu_time() -> None:
    rows = [row(1, 50.0) | {"events_per_second": 10.0}, row(2, 50.0) | {"events_per_second": 12.0}]
    assert scale.speed_ups(rows)[1] == {"processes": 2, "by_clock": 1.2, "by_cpu": 2.0}
    assert scale.half_of({"2": rows[1], "1": rows[0]}) == 5.0


@pytest.mark.parametrize(
    "wrong",
    [
        ["--only", "nothing"],
        ["--processes", "1", "8"],
        ["--resume"],
        ["--seconds", str(SETTLE_SECONDS)],
    ],
)
def test_wrong_arguments(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        scale.arguments(wrong)


def test_arguments_become_settings() -> None:
    given = scale.arguments(["--linger", "5", "--fetch-wait", "0.01", "--exchange", "0", "--full"])
    more = scale.overrides(given)
    assert more["batch"]["linger_milliseconds"] == 5
    assert more["kafka"] == {"fetch_wait_seconds": 0.01}
    assert more["state"] == {"exchange_min_events": 0}
    assert given.most_events == 10_000_000
    assert "state" not in scale.overrides(scale.arguments([]))


def test_delays_behind_the_first_seconds() -> None:
    seen = Seen(
        at=[1.0, SETTLE_SECONDS, SETTLE_SECONDS + 0.5, SETTLE_SECONDS + 1.0],
        delay=[9.0, 0.010, 0.020, 0.030],
        process=[(0.0, 100.0, 1.0), (SETTLE_SECONDS, 101.0, 2.0)],
    )
    found = percentiles(seen, 3.0)
    assert found["p50"] == pytest.approx(20.0)
    assert found["largest"] == pytest.approx(30.0)
    assert found["accepted_per_second"] == pytest.approx(3.0)
    assert found["cpu_share"] == pytest.approx(1.0 / SETTLE_SECONDS)
    assert found["over_time"][-1]["p50"] == pytest.approx(15.0)


def test_costs_of_a_short_stream() -> None:
    assert marks(10_000_000)[-1] == 10_000_000
    assert lengths([1_000, 1_000_000])[1_000_000] == 1_120_000
    told: list[int] = []
    (found,) = one_stream(100, 4_000, told.append)
    assert found["mark"] == 4_000
    assert found["cpu_us"] > 0
    assert found["snapshot_megabytes"] > 0
    assert told[-1] == 4_000
    grown = [
        {"events": n, "cpu_us": c} for n, c in ((10_000, 90.0), (100_000, 20.0), (10**6, 30.0))
    ]
    assert flatness(grown) == 1.5
    assert np.isnan(flatness([]))


def test_costs_of_an_exchange() -> None:
    found = exchange_costs(3, 1_200, lambda _: None)
    assert set(found["merging_seconds"]) == {"1", "2"}
    assert found["apart"] == 0
    assert found["stored_with_view_megabytes"] > found["stored_megabytes"] > 0
    assert found["step_us_with_view"] > 0


def test_figures_follow_from_what_was_measured() -> None:
    result = {
        "processes": {"1": row(1, 50.0), "4": row(4, 60.0)},
        "exchange": {"costs": EXCHANGE},
    }
    found = {line.what: line.value for line in scaling_figures.figures(result, 1e6, 0.6)}
    assert found["busy cores"] == pytest.approx(60.0)
    assert found["partitions, a process and a core each"] == 100
    assert found["an exchange"] == pytest.approx(100 * 0.01 + 0.03)
    assert found["brokers, before replication"] == pytest.approx(20.0)
    assert found["memory for the others' summaries"] == 500


def test_figures_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scale.json"
    file.write_text(json.dumps({"processes": {}, "exchange": {}}))
    assert scaling_figures.main([str(file)]) == 2
    assert "measure first" in capsys.readouterr().err
    costs = {"processes": {"1": row(1, 50.0)}, "exchange": {"costs": EXCHANGE}}
    file.write_text(json.dumps(costs))
    assert scaling_figures.main([str(file), "--rate", "1000"]) == 0
    assert "busy cores" in capsys.readouterr().out
