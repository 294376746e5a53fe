"""Logins, certificates and rights against a real broker of its own, with both clients."""

from __future__ import annotations

import base64
import json
import re
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)

from monitor.core.errors import TransportError, UsageError
from monitor.transport.kafka import KafkaConfig, KafkaTransport
from monitor.transport.kafka_port import make_client
from monitor.transport.kafka_security import OAuth, Secret, Security
from monitor.transport.kafka_topics import ensure_topics
from tests.kafka import secured
from tests.kafka.kafka_helpers import CLIENTS, ROOT, broker_module, poll_until, unit
from tests.kafka.secured import SecuredBroker
from tests.kafka.test_kafka_service import Process

DOCUMENT = ROOT / "deploy" / "kafka-security.md"
SECRETS = (secured.PASSWORD, secured.TLS_PASSWORD, secured.CLIENT_SECRET)
HAND_MADE = "hand-made"
_RESOURCES = {
    "--topic": ResourceType.TOPIC,
    "--group": ResourceType.GROUP,
    "--transactional-id": ResourceType.TRANSACTIONAL_ID,
}

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def broker(tmp_path_factory) -> Iterator[SecuredBroker]:
    """The broker, with topics, and with the rights that the document gives."""
    module = broker_module()
    made = SecuredBroker(tmp_path_factory.mktemp("secured"))
    try:
        made.start()
    except module.UnavailableError as error:
        made.stop()
        pytest.skip(f"no Kafka: {error}")
    except BaseException:
        made.stop()
        raise
    try:
        config = KafkaConfig(bootstrap_servers=made.address, partitions=1)
        admin = make_client(config).admin()
        ensure_topics(admin, config)
        admin.close()
        grant(made.address)
        yield made
    finally:
        made.stop()


def documented_rights() -> list[ACL]:
    """What deploy/kafka-security.md gives the user."""
    rights = []
    for line in re.findall(r"^acl (--.*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE):
        words = shlex.split(line)
        options = list(zip(words[::2], words[1::2], strict=True))
        given = dict(options)
        (kind,) = given.keys() & _RESOURCES.keys()
        pattern = ACLResourcePatternType[given.get("--resource-pattern-type", "literal").upper()]
        resource = ResourcePattern(_RESOURCES[kind], given[kind], pattern)
        for name, operation in options:
            if name == "--operation":
                word = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).upper()
                rights.append(
                    ACL(
                        f"User:{secured.USER}",
                        "*",
                        ACLOperation[word],
                        ACLPermissionType.ALLOW,
                        resource,
                    )
                )
    return rights


def grant(address: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=address)
    rights = documented_rights()
    assert len(rights) > 12
    # The same for a group whose state is made up here, which the service could not go on from.
    for right in [r for r in rights if r.resource_pattern.resource_type == ResourceType.GROUP]:
        group = ResourcePattern(ResourceType.GROUP, HAND_MADE, ACLResourcePatternType.LITERAL)
        rights.append(ACL(right.principal, "*", right.operation, right.permission_type, group))
    answer = admin.create_acls(rights)
    admin.close()
    assert not answer["failed"]


def with_password(broker: SecuredBroker, mechanism: str) -> Security:
    return Security(
        "SASL_SSL",
        mechanism,
        username=secured.USER,
        password=Secret(secured.PASSWORD),
        ca_file=broker.authority.file,
    )


def with_token(broker: SecuredBroker, secret: str = secured.CLIENT_SECRET) -> Security:
    oauth = OAuth(broker.provider.url, secured.USER, Secret(secret), scope="kafka")
    return Security("SASL_SSL", "OAUTHBEARER", ca_file=broker.authority.file, oauth=oauth)


def with_certificate(broker: SecuredBroker) -> Security:
    return Security(
        "SSL",
        ca_file=broker.authority.file,
        certificate_file=broker.certificate,
        key_file=broker.key,
        key_password=Secret(secured.TLS_PASSWORD),
    )


def config_of(broker: SecuredBroker, client: str, security: Security, **other) -> KafkaConfig:
    has_login = security.protocol == "SASL_SSL"
    return replace(
        KafkaConfig(
            client=client,
            bootstrap_servers=broker.login if has_login else broker.certificates,
            group_id=HAND_MADE,
            instance="one",
            create_topics=False,
            security=security,
            request_timeout_seconds=10.0,
            commit_deadline_seconds=10.0,
        ),
        **other,
    )


def produce(broker: SecuredBroker, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.address)
    producer.send("feedback", value, partition=0).get(10)
    producer.close(5)


WAYS = {
    "SCRAM-SHA-512": lambda broker: with_password(broker, "SCRAM-SHA-512"),
    "OAUTHBEARER": with_token,
    "certificate": with_certificate,
}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("client", CLIENTS)
def test_other_ways_to_log_in(broker, client, mechanism) -> None:
    admin = make_client(config_of(broker, client, with_password(broker, mechanism))).admin()
    try:
        assert admin.partition_counts(["feedback", "absent"]) == {"feedback": 1}
    finally:
        admin.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_record_goes_in_and_out_with_the_documented_rights(broker, client, way) -> None:
    value = f"{client} {way} {time.time()}".encode()
    produce(broker, value)
    transport = KafkaTransport(config_of(broker, client, WAYS[way](broker)))
    transport.open()
    try:
        batches, resumes = poll_until(transport, 1)
        assert [r.partition for r in resumes] == [0]
        (batch,) = batches
        assert batch.values[-1] == value
        transport.commit(unit(batch))
        assert transport.published() == {}  # reads the state topic, as others would
    finally:
        transport.close()


def refusal(config: KafkaConfig) -> str:
    config = replace(config, request_timeout_seconds=2.0)
    transport = KafkaTransport(config)
    with pytest.raises(TransportError) as caught:
        transport.open()
    transport.close()
    message = str(caught.value)
    assert "\n" not in message
    assert not any(secret in message for secret in (*SECRETS, "not-the-password"))
    return message


@pytest.mark.parametrize("client", CLIENTS)
def test_a_wrong_password_is_said_to_be_one(broker, client) -> None:
    security = replace(with_password(broker, "SCRAM-SHA-512"), password=Secret("not-the-password"))
    message = refusal(config_of(broker, client, security))
    assert "no login for user 'monitor' by SCRAM-SHA-512" in message
    assert "check kafka.security" in message


@pytest.mark.parametrize("client", CLIENTS)
def test_a_wrong_client_secret_is_said_to_be_one(broker, client) -> None:
    message = refusal(config_of(broker, client, with_token(broker, "not-the-password")))
    assert "invalid_client" in message and "check kafka.security" in message


@pytest.mark.parametrize("client", CLIENTS)
def test_a_certificate_of_another_authority_is_not_trusted(broker, client) -> None:
    security = replace(with_password(broker, "PLAIN"), ca_file=broker.stranger.file)
    message = refusal(config_of(broker, client, security))
    assert "certificate is not trusted" in message
    assert "set kafka.security.ca_file" in message and broker.stranger.file in message


@pytest.mark.parametrize("client", CLIENTS)
def test_a_missing_client_certificate_is_named(broker, client) -> None:
    security = Security("SSL", ca_file=broker.authority.file)
    message = refusal(config_of(broker, client, security))
    assert "the broker wants one: set kafka.security.certificate_file" in message


@pytest.mark.parametrize("client", CLIENTS)
def test_the_wrong_listener_is_named(broker, client) -> None:
    config = config_of(broker, client, Security(), bootstrap_servers=broker.login)
    assert "set kafka.security.protocol to SSL or SASL_SSL" in refusal(config)


def test_no_tls_on_the_other_side_is_named(broker) -> None:
    security = Security("SSL", ca_file=broker.authority.file)
    config = config_of(broker, "confluent", security, bootstrap_servers=broker.address)
    assert "does not speak TLS" in refusal(config)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_missing_right_is_named(broker, client) -> None:
    security = with_password(broker, "SCRAM-SHA-512")
    other = {"transactional_id_prefix": "somebody-else"}
    before = set(threading.enumerate())
    message = refusal(config_of(broker, client, security, **other))
    deadline = time.monotonic() + 20.0
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(threading.enumerate()) - before
    assert "the brokers refuse it" in message and "kafka-security.md" in message
    assert re.search("TRANSACTIONAL_?ID_?AUTHORIZATION_?FAILED", message, re.IGNORECASE)


def test_topics_that_may_not_be_described_are_not_called_missing_only(broker) -> None:
    security = with_password(broker, "SCRAM-SHA-512")
    config = config_of(broker, "kafka-python", security)
    topics = replace(config.topics, accepted="not.granted")
    with pytest.raises(UsageError, match=r"not\.granted.*may not describe"):
        KafkaTransport(replace(config, topics=topics)).open()


def test_the_document_names_every_topic_of_the_defaults() -> None:
    granted = {right.resource_pattern.resource_name for right in documented_rights()}
    assert set(KafkaConfig().topics.names().values()) <= granted


def test_the_documents_files_are_there() -> None:
    for name in re.findall(r"\]\(([\w./-]+)\)", DOCUMENT.read_text(encoding="utf-8")):
        assert (Path(DOCUMENT).parent / name).exists(), name


@pytest.mark.parametrize("client", CLIENTS)
def test_the_service_logs_in_by_settings_and_shows_no_secret_even_when_it_tells_all(
    broker, client, tmp_path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(secured.PASSWORD + "\n")
    chosen = {
        "kafka": {
            "client": client,
            "bootstrap_servers": broker.login,
            "instance": f"service-{client}",
            "create_topics": False,
            "security": {
                "protocol": "SASL_SSL",
                # What goes over the line is the password itself.
                "mechanism": "PLAIN",
                "username": secured.USER,
                "password_file": str(secret),
                "ca_file": broker.authority.file,
            },
        },
        "log": {"level": "debug"},
        "http": {"port": 0},
    }
    value = json.dumps(
        {"id": "e-1", "ts": 1.7e9, "source": "acct-1", "label": "a", "features": [1]}
    )
    produce(broker, value.encode())
    with Process(tmp_path, chosen) as service:
        deadline = time.monotonic() + 60
        while '"batch committed"' not in (text := service.log.read_text()):
            assert service.process.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.1)
        assert service.end(signal.SIGTERM) == 0
    text = service.log.read_text()
    assert "audit chain" not in text  # these rights are enough for it as well
    assert all(json.loads(line)["event"] for line in text.splitlines())
    encoded = base64.b64encode(secured.PASSWORD.encode()).decode()
    for hidden in (secured.PASSWORD, json.dumps(secured.PASSWORD)[1:-1], encoded, "acct-1"):
        assert hidden not in text
