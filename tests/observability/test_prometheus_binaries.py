"""Where Prometheus cannot be had: skipped on a laptop with the way to get it, failed in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks import prometheus


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(prometheus, "CACHE", tmp_path / "cache")
    return tmp_path


def test_skipped_with_the_reason(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"python -m tests\.checks\.prometheus"):
        prometheus.need("promtool")


def test_failed_in_continuous_integration(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no alertmanager on PATH"):
        prometheus.need("alertmanager")


def test_found_in_the_cache_under_debians_name(nowhere: Path) -> None:
    program = nowhere / "cache" / "usr" / "bin" / "prometheus-alertmanager"
    program.parent.mkdir(parents=True)
    program.touch()
    assert prometheus.need("alertmanager") == program
