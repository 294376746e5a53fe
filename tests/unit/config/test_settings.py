from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from monitor.cli import wiring
from monitor.config.example import example_yaml
from monitor.config.settings import (
    Settings,
    as_dict,
    keys,
    load_policy,
    load_settings,
    with_policy,
)
from monitor.config.sources import flatten, parse_yaml, section_of
from monitor.core.errors import UsageError
from monitor.core.limits import Limits
from monitor.core.types import Mode

EXAMPLE = Path(__file__).parents[3] / "deploy" / "config.example.yaml"


def load(text: str, tmp_path: Path, environ: dict[str, str] | None = None, **options: object):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    return load_settings(path, environ=environ or {}, options=dotted)


def models(kind: type[BaseModel] = Settings):
    yield kind
    for field in kind.model_fields.values():
        inner = section_of(field)
        if inner is not None:
            yield from models(inner)


def test_the_example_is_what_the_settings_say():
    assert EXAMPLE.read_text(encoding="utf-8") == example_yaml(), (
        "run python -m monitor.config.example > deploy/config.example.yaml"
    )


def test_the_example_has_every_setting_with_its_default_and_nothing_else():
    values = parse_yaml(EXAMPLE.read_text(encoding="utf-8"))
    assert dict(flatten(values)) == keys(Settings())
    assert load_settings(EXAMPLE, environ={}) == load_settings(environ={})


def test_plain_yaml_reads_the_example_alike():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert yaml.safe_load(text) == parse_yaml(text)


def test_every_setting_is_described_and_every_section_strict():
    for model in models():
        assert model.model_config["extra"] == "forbid"
        assert model.model_config["strict"] and model.model_config["frozen"]
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_sources_in_rising_precedence(tmp_path):
    text = "batch: {max_events: 10, linger_milliseconds: 5}\nhttp: {port: 1}"
    environ = {"MONITOR_BATCH__MAX_EVENTS": "20", "MONITOR_HTTP__PORT": "2"}
    settings = load(text, tmp_path, environ, http__port=3)
    assert settings.batch.max_events == 20
    assert settings.batch.linger_milliseconds == 5
    assert settings.http.port == 3
    assert settings.http.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("MONITOR_KAFKA__BOOTSTRAP_SERVERS", "b:9092", "kafka.bootstrap_servers", "b:9092"),
        ("MONITOR_KAFKA__GROUP_ID", "007", "kafka.group_id", "007"),
        ("MONITOR_KAFKA__CREATE_TOPICS", "false", "kafka.create_topics", False),
        ("MONITOR_KAFKA__GROUP_INSTANCE_ID", "null", "kafka.group_instance_id", None),
        ("MONITOR_KAFKA__TOPICS__INPUT", "in", "kafka.topics.input", "in"),
        ("MONITOR_KAFKA__OPTIONS__PROXY_URL", "123", None, None),
        ("MONITOR_POLICY__QUARANTINE_AT", "1e-4", "policy.quarantine_at", 1e-4),
        ("MONITOR_POLICY__MODE", "shadow", "policy.mode", "shadow"),
        ("MONITOR_TRANSPORT", "local", "transport", "local"),
        ("monitor_local__from", "x.jsonl", "local.from", "x.jsonl"),
        ("MONITOR_GATE__SCHEMA", "[{name: a, kind: numeric}]", None, None),
    ],
)
def test_environment(variable, text, key, value):
    settings = load_settings(environ={variable: text})
    if key is not None:
        assert keys(settings)[key] == value
    elif "OPTIONS" in variable:
        assert settings.kafka.options == {"proxy_url": "123"}
    else:
        assert settings.gate.schema_ is not None and settings.gate.schema_[0].name == "a"


def test_variables_set_by_cluster_managers_are_left_alone():
    environ = {
        "MONITOR_PORT": "tcp://10.0.0.1:80",
        "MONITOR_KAFKA": "x",
        "MONITOR_HTTP_PORT": "tcp://10.0.0.1:80",
    }
    assert load_settings(environ=environ) == load_settings(environ={})


@pytest.mark.parametrize(
    "variable", ["MONITOR_KAFKA_BOOTSTRAP_SERVERS", "MONITOR_HTTP_PORT", "monitor_log_level"]
)
def test_a_variable_that_lacks_an_underscore_is_refused_not_ignored(variable):
    with pytest.raises(UsageError, match=f"{variable}: did you mean MONITOR_[A-Z]+__[A-Z_]+"):
        load_settings(environ={variable: "1"})


def test_the_process_environment_counts_only_through_load(monkeypatch):
    monkeypatch.setenv("MONITOR_HTTP__PORT", "99")
    assert Settings().http.port == 8765
    assert load_settings().http.port == 99


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http: {port: 70000}", ["c.yaml", "http.port", "65535", "70000"]),
        ("http: {port: '1'}", ["http.port", "integer"]),
        ("htttp: {port: 1}", ["htttp", "did you mean 'http'"]),
        ("http: {prt: 1}", ["http.prt", "did you mean 'port'", "max_body_bytes"]),
        ("http: 5", ["http", "section with keys enabled, host, port"]),
        ("transport: pigeon", ["transport", "'kafka' or 'local'", "'pigeon'"]),
        ("gate: {warmup: maybe}", ["gate.warmup", "'accept' or 'hold'"]),
        ("gate: {schema: [{name: a, kind: odd}]}", ["gate.schema.0.kind", "'categorical'"]),
        ("policy: {flag_at: 0.001, quarantine_at: 0.5}", ["policy", "quarantine_at must not"]),
        ("policy: {budget: {nope: 1.0}}", ["policy.budget", "unknown family 'nope'"]),
        ("policy: {mode: off}", ["policy.mode", "'shadow'"]),
        ("a: b: c", ["c.yaml", "line 1", "YAML"]),
        ("http: {port: 1}\nhttp: {port: 2}", ["given twice", "line 2"]),
        ("[1, 2]", ["c.yaml", "key: value"]),
        ("limits: {max_ts_seconds: 1e20}", ["c.yaml: limits", "must lie within", "max_ts_seconds"]),
        ("limits: {min_ts_seconds: .nan}", ["c.yaml: limits", "must lie within"]),
        ("limits: {min_ts_seconds: 9, max_ts_seconds: 8}", ["limits", "the smaller one first"]),
        (
            "gate: {schema: [{name: a, kind: numeric}, {name: a, kind: numeric}]}",
            ["gate.schema", "'a' twice"],
        ),
        ("gate: {schema: []}", ["gate.schema", "at least one feature"]),
        ("kafka: {options: {sasl_plain_password: [x]}}", ["kafka.options.sasl_plain_password"]),
    ],
)
def test_a_bad_setting_is_one_line_with_place_key_and_what_is_allowed(text, parts, tmp_path):
    with pytest.raises(UsageError) as caught:
        load(text, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_bad_value_names_where_it_came_from(tmp_path):
    with pytest.raises(UsageError, match=r"environment variable MONITOR_HTTP__PORT: http\.port"):
        load("http: {port: 1}", tmp_path, {"MONITOR_HTTP__PORT": "x"})
    with pytest.raises(UsageError, match=r"^command line: http\.port"):
        load("http: {port: 1}", tmp_path, http__port=-1)
    with pytest.raises(UsageError, match="MONITOR_NO__SUCH: no: no such setting"):
        load_settings(environ={"MONITOR_NO__SUCH": "1"})
    with pytest.raises(UsageError, match="No such file"):
        load_settings(tmp_path / "absent.yaml", environ={})


def test_an_empty_file_is_all_defaults(tmp_path):
    assert load("# nothing\n", tmp_path) == load_settings(environ={})


def test_policy_file_and_changes(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("mode: shadow\nflag_at: 0.02\n")
    base = load_policy(path)
    settings = with_policy(Settings(), base, {"quarantine_at": 0.002, "flag_at": None})
    assert settings.policy.mode is Mode.SHADOW
    assert (settings.policy.flag_at, settings.policy.quarantine_at) == (0.02, 0.002)
    path.write_text("policy:\n  mode: alert\n")
    assert load_policy(path).mode is Mode.ALERT
    with pytest.raises(UsageError, match="command line: quarantine_at must not be larger"):
        with_policy(Settings(), base, {"quarantine_at": 0.5})
    path.write_text("flagat: 1")
    with pytest.raises(UsageError, match=r"p\.yaml: flagat: .* did you mean 'flag_at'"):
        load_policy(path)


def test_limits_are_those_of_the_core():
    assert Settings().limits.model_dump() == {
        name: getattr(Limits(), name) for name in wiring.field_names(Limits)
    }


def test_kafka_settings_are_those_of_the_transport():
    from monitor.transport.kafka import KafkaConfig, Topics

    values = as_dict(Settings())["kafka"]
    assert set(values) == wiring.field_names(KafkaConfig)
    assert set(values["topics"]) == wiring.field_names(Topics)
    settings = load_settings(environ={"MONITOR_KAFKA__COMPRESSION": "zstd"})
    assert wiring.kafka_config(settings).compression == "zstd"
    assert wiring.kafka_config(Settings()) == KafkaConfig()


def test_the_example_generator_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "monitor.config.example"], capture_output=True, check=True
    )
    assert done.stdout.decode() == example_yaml()
