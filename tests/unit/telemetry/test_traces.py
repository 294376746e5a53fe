"""Spans of micro-batches, with the SDK's own exporter in memory, and none where none are wanted."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from monitor.config.settings import Settings
from monitor.core.errors import TransportError, UsageError
from monitor.gate import Gate
from monitor.runtime.service import Service
from monitor.telemetry import traces
from monitor.transport.local import FileLines, LocalTransport

LINE = b'{"id":"e%d","ts":%d,"source":"s%d","label":"a","features":[%d.5,1.0]}\n'


class Refusing(LocalTransport):
    """Fails to commit, for ever."""

    def commit(self, unit):
        raise TransportError("the disk is full")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def made(exporter) -> traces.Traces:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return traces.Traces(provider)


def run(folder, made, kind=LocalTransport) -> None:
    path = folder / "in.jsonl"
    path.write_bytes(b"".join(LINE % (i, i, i % 7, i % 11) for i in range(600)) + b"no event\n")
    transport = kind(FileLines([path]), folder / "out", identity="x")
    settings = Settings()
    gate = Gate(policy=settings.policy)
    service = Service(gate, transport, observers=[made], batch_events=256, tracing=made)
    service.run(threading.Event())


def test_a_span_for_every_micro_batch_and_its_stages(tmp_path, made, exporter) -> None:
    run(tmp_path, made)
    spans = exporter.get_finished_spans()
    batches = [span for span in spans if span.name == "micro-batch"]
    assert [s.attributes["messaging.batch.message_count"] for s in batches] == [256, 256, 89]
    assert [s.attributes["poisoning_monitor.last_offsets"] for s in batches] == [
        (255,), (511,), (600,),
    ]  # fmt: skip
    assert batches[-1].attributes["poisoning_monitor.verdict.invalid"] == 1
    assert {s.kind for s in batches} == {SpanKind.CONSUMER}
    for batch in batches:
        inside = [s for s in spans if s.parent and s.parent.span_id == batch.context.span_id]
        assert [s.name for s in inside] == ["poll", "gate", "snapshot", "commit"]
        ends = [batch.start_time, *(time for s in inside for time in (s.start_time, s.end_time))]
        # Stages follow each other within the batch; clocks are read to some microseconds.
        slack = 50_000
        assert all(a <= b + slack for a, b in zip(ends, [*ends[1:], batch.end_time], strict=True))
        assert inside[1].attributes["poisoning_monitor.partition"] == 0
    assert not any("11.5" in str(s.attributes) or "e1" in str(s.attributes) for s in spans)


def test_a_batch_that_fails_is_a_span_with_the_error(tmp_path, made, exporter) -> None:
    with pytest.raises(TransportError):
        run(tmp_path, made, Refusing)
    (batch,) = [s for s in exporter.get_finished_spans() if s.name == "micro-batch"]
    assert batch.status.status_code == StatusCode.ERROR
    assert batch.events[0].attributes["exception.message"] == "the disk is full"


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"OTEL_SERVICE_NAME": "x"}, []),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, ["otlp_proto_http"]),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ["otlp_proto_grpc"],
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "True"}, []),
    ],
)
def test_the_standard_variables_say_whether_and_where(environ, names) -> None:
    assert traces.exporters(environ) == names


def test_the_environment_makes_a_provider_with_name_and_exporter(monkeypatch) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SERVICE_NAME": "gate-7"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    made = traces.from_environment(environ)
    assert made is not None
    assert made._provider.resource.attributes["service.name"] == "gate-7"
    made.close()


def test_an_exporter_that_is_not_there_is_a_bad_setting() -> None:
    for name in ("otpl", "console"):
        with pytest.raises(UsageError, match=f"OTEL_TRACES_EXPORTER: no exporter '{name}'"):
            traces.from_environment({"OTEL_TRACES_EXPORTER": name})


def test_without_the_package_it_runs_and_says_so(monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    assert traces.from_environment({"OTEL_TRACES_EXPORTER": "otlp"}) is None
    assert "pip install 'poisoning-monitor[otel]'" in caplog.text


def test_off_imports_nothing_of_it() -> None:
    code = (
        "import sys; from monitor.cli import wiring, logs; assert wiring.make_traces() is None; "
        "print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert ran.stdout.strip() == "[]"
