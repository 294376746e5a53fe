"""The parts of the settings: one strict, frozen model a section, every field described.

Units are in the names. The defaults here are the only ones; ``deploy/config.example.yaml`` is
generated from them.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from monitor.config.base import Section
from monitor.config.kafka_security import KafkaSecuritySettings
from monitor.core.limits import LARGEST_SECONDS

Positive = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0.0)]


class FeatureSetting(Section):
    """One feature of an explicit schema."""

    name: str = Field(
        min_length=1,
        description="Name of the feature in `features`; '0', '1', … when it is an array.",
    )
    kind: Literal["numeric", "categorical"] = Field(
        description="numeric: numbers and booleans. categorical: strings."
    )


class GateSettings(Section):
    """How the gate learns what an ordinary event looks like."""

    warmup: Literal["accept", "hold"] = Field(
        default="accept",
        description="What happens to events that arrive before the gate has learned the schema: "
        "accept lets them through unjudged, hold puts them into quarantine (in mode enforce; in "
        "the other modes everything passes). Every such decision says so.",
    )
    warmup_events: Positive = Field(
        default=512,
        description="Number of valid events from which the schema (names, kinds and spread of "
        "the features) is learned. Those that do not fit it, or hold absurd values such as 1e300, "
        "are left out; of the batch that completes the warm-up they are invalid or quarantined, "
        "what came before has been decided about already.",
    )
    warmup_max_bytes: Positive = Field(
        default=1 << 24,
        description="Most bytes of events that are kept (and stored) during the warm-up. Of a "
        "larger sample the longest events are left out, but at least 16 are kept.",
    )
    on_detector_error: Literal["quarantine", "flag", "stop"] = Field(
        default="flag",
        description="What happens to the events of a micro-batch on which a detector fails (an "
        "error, or a score that is no number). flag: they pass, flagged. quarantine: they are held "
        "back (in mode enforce). stop: the process ends with exit code 4 and nothing of the batch "
        "is let through. With flag and quarantine the other detectors go on and learn as they "
        "judge by themselves, and the reasons name the detector and the error.",
    )
    extra_detectors: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Optional detectors to run beside the default ones: collision, half_space, "
        "influence, slow_drift, spectral, structure. Each shares its family's part of the budget.",
    )
    hash_seed: int = Field(
        default=0,
        ge=0,
        lt=1 << 63,
        description="Seed of the hashes that stand for sources and ids in the stored state. Set "
        "it to a number outsiders do not know; changing it needs a fresh state.",
    )
    schema_: list[FeatureSetting] | None = Field(
        default=None,
        alias="schema",
        description="The features, when they are known beforehand: a list of "
        "{name: …, kind: numeric | categorical}. What does not fit is invalid from the first event "
        "on. null learns them from the first events.",
    )

    @field_validator("schema_")
    @classmethod
    def _each_once(cls, features: list[FeatureSetting] | None) -> list[FeatureSetting] | None:
        names = [feature.name for feature in features or ()]
        if features is not None and not names:
            raise ValueError("must name at least one feature, or be null")
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ValueError(f"names the feature {twice!r} twice")
        return features


class LimitSettings(Section):
    """Bounds on a single event. What goes over them is an invalid event, never a crash."""

    max_message_bytes: Positive = Field(
        default=1 << 20, description="Longest event, in bytes as it arrives."
    )
    max_features: Positive = Field(default=4096, description="Most features of an event.")
    max_labels: Annotated[int, Field(ge=2)] = Field(
        default=1024,
        description="Most distinct labels known at a time. One source may bring 8 or 5 % of them, "
        "and more only in proportion to its traffic. When there is no room left, a new label takes "
        "the place of one that is hardly used; with a limit below 64 it is invalid instead.",
    )
    max_depth: Positive = Field(default=8, description="Deepest nesting of the JSON.")
    max_id_chars: Positive = Field(default=128, description="Longest `id`, in characters.")
    max_source_chars: Positive = Field(default=256, description="Longest `source`, in characters.")
    max_subject_chars: Positive = Field(
        default=256, description="Longest `subject`, in characters."
    )
    max_categories: Positive = Field(
        default=8,
        description="Most values of a categorical feature that get a column of their own; "
        "the others share one.",
    )
    min_ts_seconds: float = Field(
        default=0.0, description="Earliest acceptable `ts`, in Unix seconds."
    )
    max_ts_seconds: float = Field(
        default=4102444800.0, description="Latest acceptable `ts`, in Unix seconds (2100-01-01)."
    )

    @model_validator(mode="after")
    def _ordered_times(self) -> Self:
        # NaN fails this as well.
        if not -LARGEST_SECONDS <= self.min_ts_seconds <= self.max_ts_seconds <= LARGEST_SECONDS:
            raise ValueError(
                f"min_ts_seconds and max_ts_seconds must lie within ±{LARGEST_SECONDS:.0f}, "
                "the smaller one first"
            )
        return self


class BatchSettings(Section):
    """How many events are judged, and committed, together."""

    max_events: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=2048,
        description="Most events in one micro-batch. One micro-batch is one transaction.",
    )
    linger_milliseconds: Annotated[int, Field(ge=0, le=60_000)] = Field(
        default=100,
        description="Longest wait for more events before a micro-batch that is not full is "
        "judged. Lower means less delay, higher means more throughput. Kafka hands over what is "
        "there as soon as there is something: what counts then is kafka.fetch_wait_seconds.",
    )


class OverloadSettings(Section):
    """What happens when events come faster than they can be judged."""

    mode: Literal["fail_closed", "fail_open"] = Field(
        default="fail_closed",
        description="fail_closed: events wait, the lag grows, and nothing reaches the learner "
        "unjudged; the learner falls behind. fail_open: in an overload valid events reach the "
        "learner at once, flagged, with the reason `not judged: overload`, and the gate learns "
        "nothing from them; whoever can flood the input can then slip poison through.",
    )
    lag_events: Annotated[int, Field(ge=2)] = Field(
        default=500_000,
        description="An overload begins when more events than this wait in the partitions of this "
        "instance, and ends when fewer than half of them do. Needs an input that can tell (Kafka).",
    )
    after_seconds: Annotated[float, Field(ge=0.0)] = Field(
        default=30.0,
        description="How long the lag must stay above that before an overload begins.",
    )


class StateSettings(Section):
    """How often what the gate has learned is stored."""

    snapshot_every_batches: Positive = Field(
        default=128,
        description="Most micro-batches between two full snapshots. After a crash at most this "
        "many are read and judged again, to the same result.",
    )
    snapshot_every_events: Positive = Field(
        default=65_536, description="Most events between two full snapshots."
    )
    exchange_min_events: int = Field(
        default=512,
        ge=0,
        description="Where the input has several partitions, each learns what the others know when "
        "it stores a snapshot: after a sixteenth of the events it has seen, at least so many. 0 "
        "judges every partition by its own events alone.",
    )


class LocalSettings(Section):
    """Files and pipes, for `transport: local`."""

    from_: str = Field(
        default="-",
        alias="from",
        min_length=1,
        description="Where events come from: a JSONL file that is followed as it grows, or - for "
        "standard input.",
    )
    to: str = Field(
        default="-",
        min_length=1,
        description="Where accepted events go: a file that is appended to, or - for standard "
        "output.",
    )
    out_dir: str = Field(
        default="monitor-out",
        min_length=1,
        description="Folder for quarantined, invalid and decision records and for the journal "
        "that lets a stopped run go on without a lost or doubled line.",
    )
    follow: bool = Field(
        default=True,
        description="true waits for more lines at the end of the file, false stops there.",
    )
    fsync: Literal["commit", "snapshot", "never"] = Field(
        default="snapshot",
        description="When outputs are forced to the disk: with every commit, with every snapshot, "
        "or never. A killed process loses nothing either way; this is about power cuts.",
    )


class LogSettings(Section):
    """Logs, always to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important message that is still written."
    )
    format: Literal["json", "text"] = Field(
        default="json", description="json: one object a line. text: for reading in a terminal."
    )


class TopicSettings(Section):
    """Names of the topics."""

    input: str = Field(default="feedback", min_length=1, description="Read: the events.")
    accepted: str = Field(
        default="feedback.accepted",
        min_length=1,
        description="Written: accepted events, byte-identical. What the learner reads.",
    )
    quarantine: str = Field(
        default="feedback.quarantine", min_length=1, description="Written: events held back."
    )
    invalid: str = Field(
        default="feedback.invalid",
        min_length=1,
        description="Written: records that are no events, as they came, with the reason in "
        "headers.",
    )
    decisions: str = Field(
        default="monitor.decisions", min_length=1, description="Written: one decision an event."
    )
    alerts: str = Field(default="monitor.alerts", min_length=1, description="Written: alerts.")
    audit: str = Field(
        default="monitor.audit", min_length=1, description="Written: the audit trail."
    )
    state: str = Field(
        default="monitor.state",
        min_length=1,
        description="Read and written, compacted: what the gate has learned.",
    )
    control: str = Field(
        default="monitor.control",
        min_length=1,
        description="Read and written, compacted: policy changes.",
    )
    reviews: str = Field(
        default="monitor.reviews",
        min_length=1,
        description="Read and written, compacted: what people decided about held events.",
    )
    retractions: str = Field(
        default="feedback.retractions",
        min_length=1,
        description="Written: accepted events that the learner should take back.",
    )
    checkpoints: str = Field(
        default="monitor.checkpoints",
        min_length=1,
        description="Read and written, compacted: stored models, and how far they have learned.",
    )


class KafkaSettings(Section):
    """Apache Kafka, for `transport: kafka`."""

    client: Literal["kafka-python", "confluent"] = Field(
        default="kafka-python",
        description="Which package talks to the brokers. confluent takes a fraction of the "
        "processor time and needs pip install 'poisoning-monitor[kafka-fast]'. Nothing that is "
        "stored differs, and instances with either may be in one group, so that a rolling restart "
        "changes from one to the other. With confluent, header names that are not UTF-8 leave "
        "with U+FFFD in the place of what is not, and end before a zero byte.",
    )
    bootstrap_servers: str = Field(
        default="localhost:9092",
        min_length=1,
        description="Brokers to start from, host:port, separated by commas.",
    )
    group_id: str = Field(
        default="poisoning-monitor",
        min_length=1,
        description="Consumer group. Instances with the same one share the partitions.",
    )
    client_id: str = Field(
        default="poisoning-monitor",
        min_length=1,
        description="Name shown in the brokers' logs and metrics.",
    )
    transactional_id_prefix: str = Field(
        default="poisoning-monitor",
        min_length=1,
        description="First part of the transactional id; the instance is the second.",
    )
    instance: str = Field(
        default="",
        description="Name of this instance: different from every other one that runs at the same "
        "time, the same after a restart. Empty means the machine's host name.",
    )
    group_instance_id: str | None = Field(
        default=None,
        description="Makes the instance a static member: a quick restart moves no partitions. "
        "null for a dynamic member.",
    )
    topics: TopicSettings = Field(default_factory=TopicSettings, description="Names of the topics.")
    create_topics: bool = Field(
        default=True,
        description="Whether missing topics are created at start. false: they must be there.",
    )
    partitions: Positive = Field(
        default=4, description="Partitions of created topics; outputs follow the input topic."
    )
    replication_factor: Positive = Field(
        default=1, description="Copies of created topics. Use 3 on a real cluster."
    )
    security: KafkaSecuritySettings = Field(
        default_factory=KafkaSecuritySettings,
        description="TLS and logins, see deploy/kafka-security.md.",
    )
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="What there is no setting for, as kafka-python names it whichever client is "
        "used: sasl_kerberos_service_name, client_dns_lookup; with kafka-python also "
        "sasl_kerberos_name, sasl_kerberos_domain_name, proxy_url and api_version.",
    )
    request_timeout_seconds: Seconds = Field(
        default=30.0, description="Deadline of a single request."
    )
    commit_deadline_seconds: Seconds = Field(
        default=30.0, description="Deadline of a whole commit."
    )
    session_timeout_seconds: Seconds = Field(
        default=15.0,
        description="Silence after which brokers give an instance's partitions to others.",
    )
    max_poll_interval_seconds: Seconds = Field(
        default=300.0,
        description="Longest time between two polls; a slower instance loses its partitions.",
    )
    fetch_wait_seconds: Annotated[float, Field(ge=0.0)] = Field(
        default=0.02,
        description="How long brokers may hold back records so that more of them come together. "
        "Delays an event by at most this, and only while there are few.",
    )
    max_fetch_bytes: Positive = Field(
        default=32 << 20, description="Most that one fetch brings, in bytes."
    )
    max_partition_fetch_bytes: Positive = Field(
        default=4 << 20, description="Most that one fetch brings of one partition, in bytes."
    )
    max_record_bytes: Positive = Field(
        default=2 << 20,
        description="Largest record that is written, in bytes; raised to what the input topic "
        "allows.",
    )
    compression: Literal["none", "gzip", "zstd"] = Field(
        default="none", description="Compression of everything written."
    )
