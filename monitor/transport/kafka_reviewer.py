"""Reviews on Kafka: what goes to the learner, and the record of it, in one transaction.

All instances share one transactional id. Whoever begins cuts off everybody else's open
transaction and waits until it is settled; so after that the reviews ledger, read to its end,
holds every review there is, and no further one can be added by anybody who began before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from monitor.core.blast import Retraction
from monitor.core.errors import MonitorError, TransportError
from monitor.core.held import Original, Reviews
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_ledger import drop
from monitor.transport.kafka_port import (
    Fault,
    Producer,
    RefusedError,
    as_transport_error,
    make_client,
)
from monitor.transport.kafka_records import Outgoing
from monitor.transport.kafka_topics import largest_record
from monitor.transport.kafka_worker import Worker

INSTANCE = "reviews"
"""Second half of the shared transactional id; no instance may be called so."""
_CLOSE_SECONDS = 5.0


class KafkaReviewer:
    """Reviews one after the other, among all instances. Thread-safe.

    Raises
    ------
    UsageError
        When the client's package is not installed.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = replace(config, instance=INSTANCE)
        self._client = make_client(self._config)
        self._lock = threading.Lock()
        self._partitions: dict[str, int] = {}
        self._largest = 0

    def exclusively(self, job: Callable[[], Reviews | None]) -> None:
        """Cut the others off, run ``job``, and commit what it returns in one transaction.

        Raises
        ------
        TransportError
            When the brokers fail; with ``retry`` when another one cut this one off, or when the
            brokers do not know how it ended. Either way it may have been committed, when the
            connection broke in the very last step: asked again, the ledger tells.
        """
        config, committing = self._config, False
        with self._lock:
            worker = Worker("kafka-reviews")
            made: list[Producer] = []
            # A predecessor's transaction that hangs is waited for.
            patience = config.transaction_timeout_seconds + config.request_timeout_seconds
            try:
                worker.call("beginning a review", patience, lambda: self._begin(made))
                reviews = job()
                if reviews is not None:
                    committing = True
                    commit = config.commit_deadline_seconds + 1.0
                    worker.call("reviewing", commit, lambda: self._commit(made[0], reviews))
            except MonitorError:
                raise
            except Exception as error:
                fault, text = self._client.fault(error)
                if fault is Fault.FENCED:
                    raise RefusedError(
                        "reviewing: somebody else reviewed at the same moment; try again"
                    ) from error
                # A broker that is told to end a transaction while another client cuts it off may
                # answer that it does not know what happened (UNKNOWN_SERVER_ERROR).
                if committing and fault is Fault.OTHER:
                    raise RefusedError(f"reviewing: {text}; try again") from error
                raise as_transport_error(error, "reviewing", config, self._client) from error
            finally:
                for producer in made:
                    with contextlib.suppress(Exception):
                        worker.call("closing", _CLOSE_SECONDS, partial(drop, producer))
                worker.stop()

    def _begin(self, made: list[Producer]) -> None:
        if not self._partitions:
            topics = self._config.topics
            admin = self._client.admin()
            try:
                self._largest = largest_record(admin, self._config)
                needed = [topics.accepted, topics.reviews, topics.retractions]
                found = admin.partition_counts(needed)
            finally:
                admin.close()
            if len(found) < len(needed):
                raise TransportError("reviewing: the topics are not there yet; start the service")
            self._partitions = found
        made.append(self._client.producer(self._largest))

    def _commit(self, producer: Producer, reviews: Reviews) -> None:
        topics = self._config.topics
        deadline = time.monotonic() + self._config.commit_deadline_seconds
        producer.begin()
        home = self._partitions[topics.accepted]
        for records in _released(reviews.released, topics.accepted, home):
            producer.send(records)
        home = self._partitions[topics.retractions]
        for records in _retracted(reviews.retracted, topics.retractions, home):
            producer.send(records)
        keys, values = [key for key, _ in reviews.rows], [value for _, value in reviews.rows]
        producer.send(Outgoing(topics.reviews, 0, keys, values))
        producer.flush(max(0.0, deadline - time.monotonic()))
        producer.commit(max(0.0, deadline - time.monotonic()))


def _released(originals: Sequence[Original], topic: str, partitions: int) -> Iterator[Outgoing]:
    """Records for the learner, each in the partition where it would be had it not been held."""
    by_home: dict[int, list[Original]] = defaultdict(list)
    for original in originals:
        by_home[original.partition % partitions].append(original)
    for home, some in sorted(by_home.items()):
        yield Outgoing(
            topic,
            home,
            keys=[o.key for o in some],
            # A record with neither key nor value is one that not every client can send.
            values=[b"" if o.value is None and o.key is None else o.value for o in some],
            headers=[[(_name(name), value) for name, value in o.headers] for o in some],
            timestamps=[o.timestamp for o in some],
        )


def _retracted(retracted: Sequence[Retraction], topic: str, partitions: int) -> Iterator[Outgoing]:
    """Records for the learner, each in the partition of the event that it takes back."""
    by_home: dict[int, list[Retraction]] = defaultdict(list)
    for one in retracted:
        by_home[one.partition % partitions].append(one)
    for home, some in sorted(by_home.items()):
        yield Outgoing(topic, home, [one.key for one in some], [one.value for one in some])


def _name(name: Any) -> str:
    if isinstance(name, bytes):  # not UTF-8, which is rare
        from monitor.transport.kafka_headers import RawName  # noqa: PLC0415 - kafka-python's

        return RawName.of(name)
    return str(name)
