"""deploy/examples/recommender_kafka.py beside the service, on a real broker."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.kafka.kafka_helpers import ROOT
from tests.kafka.test_kafka_service import Process, settings

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("client", ["confluent"], indirect=True)
def test_the_recommender_on_the_accepted_topic_does_not_believe_the_ring(cluster, tmp_path) -> None:
    # The example writes what the service reads: so the topics come first.
    cluster.transport(create_topics=True, partitions=1).close()
    chosen = settings(cluster) | {"policy": {"mode": "enforce"}}
    names = cluster.topics.names()
    command = [sys.executable, str(ROOT / "deploy" / "examples" / "recommender_kafka.py")]
    command += ["--bootstrap-servers", cluster.bootstrap, "--feedback", names["input"]]
    command += ["--accepted", names["accepted"], "--quarantine", names["quarantine"]]
    with Process(tmp_path, chosen) as service:
        ran = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150
        )
        assert ran.returncode == 0, ran.stderr + service.log.read_text()[-3000:]
    found = re.findall(
        r"^(all|accepted) +accuracy +([\d.]+) %, item-7 at place +(\d+)", ran.stdout, re.MULTILINE
    )
    results = {name: (float(accuracy), int(place)) for name, accuracy, place in found}
    assert results["all"][1] == 1
    assert results["accepted"][1] > 10
    assert results["accepted"][0] > results["all"][0] + 3.0
