"""Spans for OpenTelemetry, one a micro-batch with its stages. Off unless the environment asks.

The package is optional (extra ``otel``) and imported by this module alone, when it is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from monitor.core.errors import UsageError
from monitor.core.ports import CommitUnit
from monitor.core.types import RawBatch

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

SERVICE = "poisoning-monitor"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_BY_PROTOCOL = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_NANO = 1e9


def exporters(environ: Mapping[str, str]) -> list[str]:
    """Names of the exporters that the standard variables ask for; none means off.

    Examples
    --------
    >>> exporters({})
    []
    >>> exporters({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    ['otlp_proto_http']
    >>> exporters({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"})
    []
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    default = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else ""
    named = environ.get("OTEL_TRACES_EXPORTER") or default
    names = [name.strip() for name in named.split(",") if name.strip() not in ("", "none")]
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    otlp = _BY_PROTOCOL.get(protocol, protocol)
    return [otlp if name == "otlp" else name for name in names]


def from_environment(environ: Mapping[str, str]) -> Traces | None:
    """What the standard variables (``OTEL_…``) ask for; None when they ask for nothing.

    The SDK itself reads the rest of them: service name, resource, sampler, limits, and the
    exporter's endpoint, headers and certificates. Where they are set but the package is missing, a
    warning says so: a cluster may set them for everybody.

    Raises
    ------
    UsageError
        When no such exporter is installed.
    """
    names = exporters(environ)
    if not names:
        return None
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        log.warning(
            "traces are asked for (%s) but cannot be made (%s): pip install '%s[otel]'",
            *(", ".join(names), error, SERVICE),
        )
        return None
    attributes = {} if environ.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE}
    provider = TracerProvider(resource=Resource.create(attributes))
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    return Traces(provider)


def _exporter(name: str) -> Any:
    found = metadata.entry_points(group="opentelemetry_traces_exporter")
    known = sorted(point.name for point in found if point.name != "console")
    if name not in known:  # the console's would write between the accepted events
        raise UsageError(
            f"OTEL_TRACES_EXPORTER: no exporter {name!r} here; known: otlp, {', '.join(known)}"
        )
    return next(iter(found.select(name=name))).load()()


class Traces:
    """Makes a span of every micro-batch, with a child for each stage.

    Implements :class:`~monitor.runtime.parties.Tracing`, and is an observer of commits.

    Parameters
    ----------
    provider
        The SDK's, with exporters. It is not made the global one: nobody else's spans are ours.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - optional

        self._api: Any = trace
        self._provider = provider
        self._tracer: Any = provider.get_tracer(SERVICE)
        self._span: Any = None
        self._zero = 0.0

    @contextlib.contextmanager
    def batch(
        self, batches: Sequence[RawBatch], began: float, polled: float
    ) -> Iterator[Mapping[str, str]]:
        """See :class:`~monitor.runtime.parties.Tracing`."""
        some = [raw for raw in batches if len(raw)]
        if not some:
            yield {}
            return
        self._zero = time.time() - time.perf_counter()
        attributes = {
            "messaging.operation.type": "process",
            "messaging.batch.message_count": sum(map(len, some)),
            "poisoning_monitor.partitions": [raw.partition for raw in some],
            "poisoning_monitor.first_offsets": [int(raw.offset[0]) for raw in some],
            "poisoning_monitor.last_offsets": [int(raw.offset[-1]) for raw in some],
        }
        with self._tracer.start_as_current_span(
            "micro-batch",
            start_time=self._nanoseconds(began),
            kind=self._api.SpanKind.CONSUMER,
            attributes=attributes,
        ) as span:
            self._span = span
            self.stage("poll", began, polled)
            try:
                yield self._names(span)
            finally:
                self._span = None

    def _nanoseconds(self, at: float) -> int:
        return int((self._zero + at) * _NANO)

    def _names(self, span: Any) -> dict[str, str]:
        context = span.get_span_context()
        if not span.is_recording():  # not sampled
            return {}
        return {
            "trace_id": self._api.format_trace_id(context.trace_id),
            "span_id": self._api.format_span_id(context.span_id),
        }

    def stage(self, name: str, began: float, ended: float, partition: int | None = None) -> None:
        """See :class:`~monitor.runtime.parties.Tracing`."""
        attributes = {} if partition is None else {"poisoning_monitor.partition": partition}
        child = self._tracer.start_span(
            name, start_time=self._nanoseconds(began), attributes=attributes
        )
        child.end(end_time=self._nanoseconds(ended))

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Put the verdicts on the span of the micro-batch."""
        span = self._span
        if span is None or not span.is_recording():
            return
        for word, n in unit.verdicts().items():
            span.set_attribute(f"poisoning_monitor.verdict.{word}", n)
        version = unit.parts[0].decisions.policy_version
        span.set_attribute("poisoning_monitor.policy_version", version)

    def close(self) -> None:
        """Send what is left. What cannot be sent by then is dropped."""
        self._provider.shutdown()
