"""deploy/compose.yaml, as far as it can be read without a container engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.config.settings import load_settings
from tests.checks import prometheus as programs

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
FILE = DEPLOY / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
BY_NAME = [pytest.param(service, id=name) for name, service in SERVICES.items()]


def test_it_is_a_compose_file() -> None:
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("service", BY_NAME)
def test_images_are_pinned(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+", service["image"])


def test_what_is_built_is_the_image_of_the_dockerfile() -> None:
    built = {name for name, service in SERVICES.items() if "build" in service}
    assert built == {"tokens", "monitor", "generator", "learner", "learner-ungated"}
    for name in built:
        build = SERVICES[name]["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
        version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
        assert SERVICES[name]["image"] == f"poisoning-monitor:{version[1]}"


@pytest.mark.parametrize("service", BY_NAME)
def test_what_is_mounted_is_there(service: dict[str, Any]) -> None:
    for mount in service.get("volumes", []):
        source, target, *rest = mount.split(":")
        assert target.startswith("/")
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
            assert rest == ["ro"], f"{mount} could be written"
        else:
            assert source in COMPOSE["volumes"], source


def test_every_volume_is_used() -> None:
    used = {m.split(":")[0] for s in SERVICES.values() for m in s.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= used


@pytest.mark.parametrize("service", BY_NAME)
def test_ports_are_open_to_this_machine_alone(service: dict[str, Any]) -> None:
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("service", BY_NAME)
def test_what_is_waited_for_can_become_true(service: dict[str, Any]) -> None:
    waited = service.get("depends_on", {})
    conditions = waited if isinstance(waited, dict) else {key: {} for key in waited}
    for name, how in conditions.items():
        other = SERVICES[name]
        if how.get("condition") == "service_healthy":
            own = "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
            disabled = other.get("healthcheck", {}).get("disable", False)
            assert not disabled and ("test" in other.get("healthcheck", {}) or own)
        if how.get("condition") == "service_completed_successfully":
            assert "restart" not in other


def test_scripts_are_where_the_commands_say() -> None:
    for name in ("generator", "learner", "learner-ungated"):
        service = SERVICES[name]
        script = Path(service["command"][0])
        source, target, _ = service["volumes"][0].split(":")
        assert (DEPLOY / source / script.relative_to(target)).is_file()
        assert service["entrypoint"] == ["python"]


def test_the_monitors_settings_are_ones_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICES["monitor"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings(None)
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.http.host == "0.0.0.0" and settings.http.insecure
    kept = [m.split(":")[1] for m in SERVICES["monitor"]["volumes"]]
    for path in (settings.http.tokens_file, settings.quarantine.dir):
        assert any(Path(str(path)).is_relative_to(folder) for folder in kept), path
    (port,) = SERVICES["monitor"]["ports"]
    assert port.endswith(f":{settings.http.port}")


def test_the_token_is_made_where_the_monitor_reads_it(tmp_path: Path) -> None:
    """The very command, twice: once makes the token, the second start leaves it."""
    (command,) = SERVICES["tokens"]["command"]
    made = SERVICES["monitor"]["environment"]["MONITOR_HTTP__TOKENS_FILE"]
    assert made in command and SERVICES["tokens"]["volumes"] == SERVICES["monitor"]["volumes"]
    here = command.replace("/data/", f"{tmp_path}/").replace(
        "poisoning-monitor", f"{sys.executable} -m monitor"
    )
    shown = []
    for _ in range(2):
        ran = subprocess.run(
            ["sh", "-c", here], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        shown.append(ran.stdout)
    assert shown[0].startswith("mon_") and shown[1] == ""


def test_prometheus_scrapes_the_monitor_and_reads_the_shipped_rules() -> None:
    config = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in SERVICES and SERVICES[host]["ports"][0].endswith(f":{port}")
    mounts = dict(m.split(":")[:2] for m in SERVICES["prometheus"]["volumes"])
    inside = {target: source for source, target in mounts.items()}
    for pattern in config["rule_files"]:
        folder = str(Path(pattern).parent)
        assert list((DEPLOY / inside[folder]).glob(Path(pattern).name)), pattern
    (alerting,) = config["alerting"]["alertmanagers"]
    assert alerting["static_configs"][0]["targets"] == ["alertmanager:9093"]
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]


def test_prometheus_and_alertmanager_take_their_files(tmp_path: Path) -> None:
    text = (DEPLOY / "compose" / "prometheus.yml").read_text("utf-8")
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/etc/prometheus/shipped", str(DEPLOY / "prometheus")))
    assert "rule files" in programs.promtool("check", "config", config)
    amtool = programs.need("amtool")
    file = DEPLOY / "compose" / "alertmanager.yml"
    ran = subprocess.run(
        [amtool, "check-config", file], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_grafana_finds_what_it_is_given() -> None:
    service = SERVICES["grafana"]
    mounts = {m.split(":")[1]: m.split(":")[0] for m in service["volumes"]}
    given = DEPLOY / mounts["/etc/grafana/provisioning"]
    provider = yaml.safe_load((given / "dashboards" / "poisoning-monitor.yaml").read_text("utf-8"))
    path = provider["providers"][0]["options"]["path"]
    assert list((DEPLOY / mounts[path]).glob("*.json"))
    home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (DEPLOY / mounts[str(home.parent)] / home.name).is_file()
    text = (given / "datasources" / "prometheus.yaml").read_text("utf-8")
    asked = set(re.findall(r"url: \$(\w+)", text))
    assert asked == {"PROMETHEUS_URL", "ALERTMANAGER_URL"} <= set(service["environment"])
    for name in asked:
        host, port = service["environment"][name].removeprefix("http://").split(":")
        assert SERVICES[host]["ports"][0].endswith(f":{port}")
    # Prometheus and Alertmanager alert here: Grafana's own rules would tell everything twice.
    assert not (given / "alerting").exists()
