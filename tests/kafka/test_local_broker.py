"""The launcher of the local broker tells apart what cannot be had and what does not start."""

from __future__ import annotations

import sys

import pytest

from tests.kafka.kafka_helpers import broker_module

VERSION_17 = "echo 'openjdk version \"17.0.1\"' >&2"


@pytest.fixture
def module():
    return broker_module()


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A PATH on which only what the test puts there is found."""
    if sys.platform == "win32":
        pytest.skip("needs shell scripts")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def add(name, *lines):
        script = folder / name
        script.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        script.chmod(0o755)

    return add


def test_no_java(module, tools):
    with pytest.raises(module.UnavailableError, match="install a Java runtime"):
        module.find_java()


def test_java_too_old(module, tools):
    tools("java", "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(module.UnavailableError, match="java 11 is too old"):
        module.find_java()


def test_no_maven(module, tools, tmp_path):
    with pytest.raises(module.UnavailableError, match="install Maven"):
        module.fetch(tmp_path / "cache")


def test_download_fails(module, tools, tmp_path):
    tools("mvn", "echo '[ERROR] Could not transfer artifact'", "exit 1")
    with pytest.raises(module.UnavailableError, match="Could not transfer"):
        module.fetch(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_fetched_but_does_not_start(module, tools, tmp_path, monkeypatch):
    tools(
        "java", f'case "$*" in *-version*) {VERSION_17};; *StorageTool*) echo id;; *) exit 7;; esac'
    )
    monkeypatch.setattr(module, "fetch", lambda: tmp_path)
    with pytest.raises(module.StartError, match="it ended with 7"):
        module.Broker(tmp_path / "data").start()
