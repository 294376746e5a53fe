"""Prometheus, promtool and Alertmanager for the tests: found, fetched into .cache/, started.

From PATH first, else from ``.cache/prometheus`` of the checkout, where
``python -m tests.checks.prometheus`` unpacks Debian's packages: nothing is installed on the
machine and no service is started. Without either a test skips with the reason; in continuous
integration (``CI=true``) it fails, because a gate that silently skips is none.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "prometheus"
PACKAGES = ("prometheus", "prometheus-alertmanager")
# Debian calls the Alertmanager otherwise than its authors do.
NAMES = {
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("alertmanager", "prometheus-alertmanager"),
    "amtool": ("amtool",),
}
# Debian's Alertmanager looks for its templates in this folder. In our copy the same
# number of bytes name it relative to the folder that it is started in, which is then CACHE.
TEMPLATES = b"/usr/share/prometheus/alertmanager"
RELATIVE = TEMPLATES.replace(b"/usr/share", b"usr//share")
HOW = "run: python -m tests.checks.prometheus (needs apt-get and dpkg-deb)"
START_SECONDS = 60.0


def find(name: str) -> Path | None:
    """The program ``name`` (prometheus, promtool, alertmanager, amtool), or None."""
    for alias in NAMES[name]:
        on_path = shutil.which(alias)
        if on_path is not None:
            return Path(on_path)
        cached = CACHE / "usr" / "bin" / alias
        if cached.is_file():
            return cached
    return None


def need(name: str) -> Path:
    """The program ``name``; skips the test without it, or fails it in continuous integration."""
    found = find(name)
    if found is not None:
        return found
    reason = f"no {name} on PATH or in .cache/prometheus; {HOW}"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason)
    pytest.skip(reason)


def fetch() -> None:
    """Unpack Debian's packages into .cache/prometheus, when something is missing.

    Raises
    ------
    subprocess.CalledProcessError, OSError
        When there is no apt-get, or it cannot reach an archive.
    """
    if all(find(name) is not None for name in NAMES):
        return
    CACHE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent, prefix="prometheus-") as made:
        folder = Path(made)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)
        unpacked = folder / "unpacked"
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
        program = unpacked / "usr" / "bin" / "prometheus-alertmanager"
        program.write_bytes(program.read_bytes().replace(TEMPLATES, RELATIVE))
        shutil.rmtree(CACHE, ignore_errors=True)
        unpacked.rename(CACHE)


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A server in a folder of its own, on a free port of this machine; stopped by its own id.

    Parameters
    ----------
    name
        The program, see :func:`find`.
    folder
        Made if it is not there; holds data and log.
    arguments
        Of the program; its address is given by this class.
    """

    def __init__(self, name: str, folder: Path, arguments: list[str]) -> None:
        program = need(name)
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.log = name, folder / f"{name}.log"
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        command = [str(program), *arguments, f"--web.listen-address={self.address}"]
        place = CACHE if program.is_relative_to(CACHE) else folder
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if httpx.get(f"{self.url}/-/ready", timeout=5.0).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                pytest.fail(f"{self.name} does not start ({code}):\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, characters: int = 3000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:]

    def get(self, path: str, **params: Any) -> Any:
        """The JSON that GET ``path`` answers with."""
        answer = httpx.get(f"{self.url}{path}", params=params, timeout=15.0)
        assert answer.status_code == 200, (path, params, answer.status_code, answer.text)
        return answer.json()

    def stop(self) -> None:
        """End it, and wait for its end."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Prometheus(Running):
    """A Prometheus with ``config`` (a file); exemplars are stored."""

    def __init__(self, folder: Path, config: Path, *flags: str) -> None:
        arguments = [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--enable-feature=exemplar-storage",
            *flags,
        ]
        super().__init__("prometheus", folder, arguments)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: a list of ``{"metric": {...}, "value": [t, "v"]}``."""
        answer = self.get("/api/v1/query", query=expression)
        assert answer["status"] == "success", answer
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        return list(data["result"])

    def wait_for(self, expression: str, seconds: float = 60.0) -> list[dict[str, Any]]:
        """The result of ``expression`` as soon as it has one."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.query(expression)
            if found:
                return found
            assert time.monotonic() < deadline, f"no data for {expression}:\n{self.tail()}"
            time.sleep(0.2)


class Alertmanager(Running):
    """An Alertmanager with ``config`` (a file), alone."""

    def __init__(self, folder: Path, config: Path) -> None:
        arguments = [
            f"--config.file={config}",
            f"--storage.path={folder / 'alerts'}",
            "--cluster.listen-address=",
        ]
        super().__init__("alertmanager", folder, arguments)


def promtool(*arguments: str | Path, cwd: Path | None = None) -> str:
    """What promtool writes; the test fails with it when promtool does not agree."""
    command = [str(need("promtool")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


if __name__ == "__main__":
    try:
        fetch()
    except (OSError, subprocess.CalledProcessError) as problem:
        sys.exit(f"Prometheus cannot be had: {problem}")
