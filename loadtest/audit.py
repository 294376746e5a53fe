"""What the audit chain costs the gate, and how fast `audit verify` is.

    python loadtest/audit.py [--events N] [--repeat N] [--kafka HOST:PORT] [--json]

Judges a made stream in memory and chains what was decided, and verifies a folder of so many
decisions and an export of all of it, or topics of that broker. Processor time, the best of several
rounds, as others disturb; on Kafka also the time on the clock, in which the broker works too.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monitor.core.types import RawBatch
from monitor.gate import Gate, GateConfig
from monitor.state.audit import Chaining, Head, Judging, extend
from monitor.state.audit_export import Export
from monitor.state.audit_proof import verify_export
from monitor.state.snapshots import seal, snapshot_digest
from monitor.transport.audit_folder import AUDIT, DECISIONS, Trust, folder_source, verify_folder
from monitor.transport.audit_topics import verify_topics
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_port import make_client
from monitor.transport.kafka_records import Outgoing, Topics
from monitor.transport.kafka_topics import ensure_topics

BATCH, ROUNDS, GROWN = 2048, 3, 16_384
EVERY_EVENTS = 65_536  # between two snapshots of a grown state
BY, JUDGING = Chaining("local", "loadtest"), Judging(0, 1, "empty@0")


def stream(n: int) -> list[bytes]:
    """Events of two classes with eight features."""
    rng = np.random.default_rng(7)
    y = rng.random(n) < 0.4
    x = np.round(rng.normal(size=(n, 8)) + 2.0 * y[:, None], 4)
    source = rng.integers(500, size=n)
    return [
        orjson.dumps(
            {
                "id": f"e{i}",
                "ts": 1.7e9 + i / 100,
                "source": f"acct-{source[i]}",
                "label": "fraud" if y[i] else "legit",
                "features": x[i].tolist(),
            }
        )
        for i in range(n)
    ]


def cost(events: list[bytes]) -> dict[str, float]:
    """Microseconds an event, of the gate and of the chain."""
    gate, chain, counted = [], [], len(events) - -(-GROWN // BATCH) * BATCH
    for _ in range(ROUNDS):
        made, head, spent = Gate(GateConfig()), Head(), np.zeros(2)
        state = made.start()
        for start in range(0, len(events), BATCH):
            raw = RawBatch.of(events[start : start + BATCH], start=start)
            began = time.thread_time()
            decisions, state = made.step(state, raw)
            judged = time.thread_time()
            _, head = extend(head, BY, JUDGING, decisions.offset, decisions.records)
            if start >= GROWN:  # a young gate judges in small parts, which takes longer
                spent += judged - began, time.thread_time() - judged
        gate.append(spent[0] / counted * 1e6)
        chain.append(spent[1] / counted * 1e6)
    snapshot = seal(0, len(events), made.pieces(state))
    began = time.thread_time()
    snapshot_digest(snapshot)
    stored = (time.thread_time() - began) / EVERY_EVENTS * 1e6
    chained = min(chain) + stored
    return {
        "gate_us": min(gate),
        "chain_us": min(chain),
        "snapshot_digest_us": stored,
        "snapshot_bytes": float(len(snapshot)),
        "share": chained / min(gate),
    }


def decided(events: list[bytes], repeat: int, place: bytes) -> list[bytes]:
    """Decisions about events, so many times over, each about another place."""
    gate = Gate(GateConfig(local=place == b"line"))
    records: list[bytes] = []
    for start in range(0, len(events), BATCH):
        raw = RawBatch.of(events[start : start + BATCH], start=start)
        records += gate.check(raw).records
    name, first = re.compile(rb'"%b":\d+' % place), int(place == b"line")
    return [
        name.sub(b'"%b":%d' % (place, number), record, count=1)
        for number, record in enumerate(records * repeat, first)
    ]


def speed_kafka(events: list[bytes], repeat: int, bootstrap: str) -> dict[str, float]:
    """The same from topics, made for it, with each client."""
    every, found = decided(events, repeat, b"offset"), {}
    mark = f"audit-{time.time_ns():x}"
    topics = Topics(**{role: f"{mark}.{name}" for role, name in Topics().names().items()})
    base = KafkaConfig(
        bootstrap_servers=bootstrap, group_id=mark, transactional_id_prefix=mark, topics=topics
    )
    base = replace(base, partitions=1, instance="load")
    client = make_client(replace(base, client="confluent"))
    admin = client.admin()
    ensure_topics(admin, base)
    admin.close()
    producer, head = client.producer(base.max_record_bytes), Head()
    by = Chaining(topics.input, "loadtest")
    for start in range(0, len(every), BATCH):
        part = every[start : start + BATCH]
        offsets = np.arange(start, start + len(part))
        lines, head = extend(head, by, JUDGING, offsets, part)
        producer.begin()
        keys = [b"0-%d" % at for at in offsets]
        producer.send(Outgoing(topics.decisions, 0, keys, part))
        producer.send(Outgoing(topics.audit, 0, [b"chain"] * len(lines), lines))
        producer.flush(30.0)
        producer.commit(30.0)
    producer.close(5.0)
    for name in ("kafka-python", "confluent"):
        began, used = time.perf_counter(), time.process_time()
        report = verify_topics(replace(base, client=name), Trust())
        seconds, used = time.perf_counter() - began, time.process_time() - used
        assert not report.findings and report.chains[0].decisions == len(every)
        found[f"{name}_per_second"] = len(every) / seconds
        found[f"{name}_per_processor_second"] = len(every) / used
    return found


def speed(events: list[bytes], repeat: int) -> dict[str, float]:
    """Decisions a second of `audit verify`, whole and with one record changed in the middle."""
    every = decided(events, repeat, b"line")
    found = {"decisions": float(len(every)), "mean_bytes": sum(map(len, every)) / len(every)}
    with tempfile.TemporaryDirectory() as place:
        folder, head, lines = Path(place), Head(), []
        for start in range(0, len(every), BATCH):
            part = every[start : start + BATCH]
            offsets = np.arange(start, start + len(part))
            more, head = extend(head, BY, JUDGING, offsets, part)
            lines += more
        (folder / AUDIT).write_bytes(b"".join(line + b"\n" for line in lines))
        for name in ("whole", "tampered"):
            (folder / DECISIONS).write_bytes(b"".join(record + b"\n" for record in every))
            best = float("inf")
            for _ in range(3):
                began = time.process_time()
                report = verify_folder(folder)
                best = min(best, time.process_time() - began)
                assert len(report.findings) == (name == "tampered")
            found[f"{name}_per_second"] = len(every) / best
            if name == "whole":
                found |= speed_export(folder, len(every))
            every[len(every) // 2] = every[len(every) // 2].replace(b"accept", b"accePt")
    return found


def speed_export(folder: Path, decisions: int) -> dict[str, float]:
    """Decisions a second of `audit export` of all of a folder, and of `audit verify` of that."""
    out, found = folder / "export.jsonl", {}
    began = time.process_time()
    with out.open("wb") as stream:
        stream.writelines(Export(folder_source(folder), 0.0, 4e9).rows())
    found["exported_per_second"] = decisions / (time.process_time() - began)
    began = time.process_time()
    with out.open("rb") as stream:
        report = verify_export(stream, None)
    found["export_verified_per_second"] = decisions / (time.process_time() - began)
    assert not report.findings and report.chains[0].decisions == decisions
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--repeat", type=int, default=20, help="copies to verify")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="verify topics of this broker, too")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    events = stream(args.events)
    found = cost(events) | speed(events, args.repeat)
    if args.kafka is not None:
        found |= speed_kafka(events, args.repeat, args.kafka)
    if args.json:
        print(orjson.dumps(found).decode())
        return
    for name, value in found.items():
        print(f"{name:36} {value:12,.3f}")


if __name__ == "__main__":
    main()
