"""A real Kafka broker for these tests, and the reason where there is none.

``KAFKA_BOOTSTRAP_SERVERS`` if set, else a broker from Maven Central (deploy/kafka-local), else one
in Docker. A broker that was fetched but does not start is an error, not a reason to skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.kafka.kafka_helpers import CLIENTS, Cluster, broker_module

DOCKER_IMAGE = "apache/kafka:4.1.1"
DOCKER_START_SECONDS = 90


def _local(tmp: Path):
    """(address, words, stop) of a broker started here; UnavailableError when it cannot be had."""
    module = broker_module()
    broker = module.Broker(tmp / "kafka")
    broker.start()
    return broker.address, f"{broker.version} (local broker)", broker.stop


def _docker(module):
    """The same from a container. Only asked when there is a daemon to run it."""
    docker = shutil.which("docker")
    up = docker and subprocess.run([docker, "info"], capture_output=True, check=False)
    if not up or up.returncode != 0:
        return None
    port = module.free_port()
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    options = [part for item in settings.items() for part in ("-e", "=".join(item))]
    name = f"monitor-test-{uuid.uuid4().hex[:8]}"
    run = [docker, "run", "-d", "--rm", "--name", name, "-p", f"127.0.0.1:{port}:9092"]
    started = subprocess.run(
        [*run, *options, DOCKER_IMAGE], capture_output=True, text=True, check=False
    )
    if started.returncode != 0:
        return None
    deadline = time.monotonic() + DOCKER_START_SECONDS

    def stop() -> None:
        subprocess.run([docker, "stop", name], capture_output=True, check=False)

    while not module.answers(port):
        if time.monotonic() > deadline:
            stop()
            pytest.fail("the Kafka container does not start")
        time.sleep(0.5)
    return f"127.0.0.1:{port}", f"{DOCKER_IMAGE} (Docker)", stop


@pytest.fixture(scope="session")
def bootstrap(request, tmp_path_factory):
    """Address of a real broker, for the whole session."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        request.config.kafka_status = f"{given} (KAFKA_BOOTSTRAP_SERVERS)"
        yield given
        return
    module = broker_module()
    try:
        address, words, stop = _local(tmp_path_factory.mktemp("broker"))
    except module.UnavailableError as error:
        found = _docker(module)
        if found is None:
            reason = f"{error}; no Docker either"
            request.config.kafka_status = f"not tested ({reason}); only a mock cluster was"
            pytest.skip(f"no Kafka: {reason}")
        address, words, stop = found
    except module.StartError as error:
        request.config.kafka_status = "fetched, but it does not start"
        pytest.fail(str(error))
    request.config.kafka_status = words
    try:
        yield address
    finally:
        stop()


@pytest.fixture(params=CLIENTS)
def client(request):
    """Each of the libraries; a test that is about something else marks itself with one."""
    if request.param == "confluent":
        pytest.importorskip("confluent_kafka")
    return request.param


@pytest.fixture
def cluster(bootstrap, client):
    """Fresh topic names and a fresh group on the broker."""
    with Cluster(bootstrap, client) as found:
        yield found
