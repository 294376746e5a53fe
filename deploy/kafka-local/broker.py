#!/usr/bin/env python3
"""A real Apache Kafka broker on this machine, without Docker: needs Java 17 and Maven.

    python3 deploy/kafka-local/broker.py

fetches Kafka from Maven Central (once, about 50 MB, into .cache/kafka of the checkout), starts
one KRaft broker on the loopback address, says where it is, and stops it at Ctrl-C or SIGTERM.
Only the standard library is needed. Exit codes: 0 stopped as asked, 1 fetched but does not start
or died, 2 bad usage, 69 cannot be had here (no Java, no Maven, or the download failed).
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "kafka"
UNAVAILABLE = 69
JAVA_AT_LEAST = 17
START_SECONDS = 90
STOP_SECONDS = 20
FETCH_SECONDS = 600


class UnavailableError(Exception):
    """Kafka cannot be fetched or run on this machine at all."""


class StartError(Exception):
    """Kafka was fetched, but the broker does not come up."""


def find_java() -> str:
    """Path of a Java of at least version 17."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    java = java or shutil.which("java")
    if java is None:
        raise UnavailableError(f"no java: install a Java runtime, version {JAVA_AT_LEAST} or later")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < JAVA_AT_LEAST:
        version = found[1] if found else "of unknown version"
        raise UnavailableError(f"java {version} is too old: Kafka needs {JAVA_AT_LEAST} or later")
    return java


def performance_options() -> list[str]:
    """Options of Java from the variable that Kafka's own scripts read as well."""
    return os.environ.get("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:+UseSerialGC").split()


def kafka_version(libs: Path) -> str:
    """Version of the broker in ``libs``."""
    names = [p.name for p in libs.glob("kafka_2.13-*.jar")]
    return names[0].removeprefix("kafka_2.13-").removesuffix(".jar") if names else "unknown"


def fetch(cache: Path = CACHE) -> Path:
    """Folder with Kafka's jars, fetched with Maven unless an earlier fetch was complete."""
    done = cache / "complete"
    pom = (HERE / "pom.xml").read_text()
    if done.is_file() and done.read_text() == pom:
        return cache / "libs"
    mvn = shutil.which("mvn")
    if mvn is None:
        raise UnavailableError("no mvn: install Maven, with which Kafka is fetched")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:  # two processes may want it at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.is_file() and done.read_text() == pom:
            return cache / "libs"
        return _fetched(mvn, cache, pom)


def _fetched(mvn: str, cache: Path, pom: str) -> Path:
    done, problems = cache / "complete", []
    for profile in ([], ["-Dk3"]):
        fresh = Path(tempfile.mkdtemp(prefix="fetch-", dir=cache))
        problem = _copy_jars([mvn, *profile], fresh)
        if problem is None:
            done.unlink(missing_ok=True)
            shutil.rmtree(cache / "libs", ignore_errors=True)
            fresh.rename(cache / "libs")
            done.write_text(pom)
            return cache / "libs"
        shutil.rmtree(fresh, ignore_errors=True)
        problems.append(problem)
    raise UnavailableError(f"Maven could not fetch Kafka: {problems[0]}")


def _copy_jars(mvn: list[str], target: Path) -> str | None:
    """Have Maven copy the jars to ``target``; what went wrong, or None."""
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
    command = [*mvn, "-B", "-q", "-f", str(HERE / "pom.xml"), goal, "-DincludeScope=runtime"]
    command.append(f"-DoutputDirectory={target}")
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"not finished after {FETCH_SECONDS} s"
    if ran.returncode == 0 and any(target.glob("kafka_2.13-*.jar")):
        return None
    errors = [line for line in ran.stdout.splitlines() if "ERROR" in line]
    return errors[0] if errors else f"mvn ended with {ran.returncode}"


def free_port() -> int:
    """A port nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether a Kafka broker answers there (an ApiVersions request, version 0)."""
    body = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            return len(connection.recv(8)) == 8
    except OSError:
        return False


@dataclass
class Node:
    """A broker's place in a cluster; by default it is alone."""

    node_id: int = 1
    voters: str = ""
    cluster_id: str = ""
    replicas: int = 1
    heap_megabytes: int = 512


@dataclass
class Extras:
    """What a broker is given beside the template, for TLS and logins.

    ``properties`` replace lines of server.properties or come after them; what they hold in
    ``{port}`` and ``{controller_port}`` is filled in. ``jvm`` are options of its Java, and
    ``storage`` of formatting its data folder (``--add-scram …``).
    """

    properties: dict[str, str] = field(default_factory=dict)
    jvm: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()


class Broker:
    """One broker process. Its data, settings and log are in ``data``."""

    def __init__(
        self,
        data: Path,
        port: int = 0,
        controller_port: int = 0,
        *,
        node: Node | None = None,
        extras: Extras | None = None,
    ) -> None:
        self.data = data
        self.port = port or free_port()
        self.controller_port = controller_port or free_port()
        self.node = node or Node()
        self.extras = extras or Extras()
        self.version = "unknown"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What to set bootstrap_servers to."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Fetch, format a fresh data folder, start, and wait until the broker answers."""
        self.launch()
        self.wait_until_up()

    def launch(self) -> None:
        """Start the process, without waiting for an answer."""
        java, libs = find_java(), fetch()
        self.version = kafka_version(libs)
        settings = self._write_settings()
        run = [java, f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
        run += [f"-Xmx{self.node.heap_megabytes}m", *performance_options(), *self.extras.jvm]
        run += ["-cp", f"{libs}/*"]
        if not (self.data / "logs" / "meta.properties").exists():
            self._format(run, settings)
        with (self.data / "broker.log").open("ab") as log:
            # A group of its own: Ctrl-C reaches this script only, which then stops the broker.
            self._process = subprocess.Popen(
                [*run, "kafka.Kafka", str(settings)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        """Wait until the broker answers. Raises StartError."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.port):
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                why = f"it ended with {ended}" if ended is not None else f"no answer on {self.port}"
                self.stop()
                raise StartError(f"the broker does not start: {why}\n{self.log_tail()}")
            time.sleep(0.2)

    def _write_settings(self) -> Path:
        self.data.mkdir(parents=True, exist_ok=True)
        changed = self.extras.properties
        lines = (HERE / "server.properties").read_text().splitlines()
        lines = [line for line in lines if line.partition("=")[0] not in changed]
        text = "\n".join([*lines, *(f"{key}={value}" for key, value in changed.items()), ""])
        alone = f"{self.node.node_id}@127.0.0.1:{self.controller_port}"
        values = {
            "port": self.port,
            "controller_port": self.controller_port,
            "node_id": self.node.node_id,
            "voters": self.node.voters or alone,
            "replicas": self.node.replicas,
            "in_sync": max(1, self.node.replicas - 1),
            "log_dir": self.data / "logs",
        }
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", str(value))
        settings = self.data / "server.properties"
        settings.write_text(text)
        return settings

    def _format(self, run: list[str], settings: Path) -> None:
        tool = [*run, "kafka.tools.StorageTool"]
        cluster = self.node.cluster_id or random_cluster_id()
        command = [*tool, "format", "-t", cluster, "-c", str(settings), *self.extras.storage]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise StartError(f"the data folder cannot be formatted: {ran.stdout}{ran.stderr}")

    def log_tail(self, lines: int = 20) -> str:
        """The end of the broker's log."""
        log = self.data / "broker.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait(self) -> int:
        """Wait until the broker ends by itself, and return its exit code."""
        return self._process.wait() if self._process else 0

    def kill(self) -> None:
        """Kill the broker: nothing is flushed or handed over."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop the broker, gently first."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def random_cluster_id() -> str:
    """A cluster id in Kafka's own form, which may not begin with a dash."""
    while (made := base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")).startswith("-"):
        pass
    return made


class BrokerCluster:
    """Several brokers on this machine that replicate each other; any one of them may be away."""

    def __init__(self, data: Path, count: int = 3, heap_megabytes: int = 320) -> None:
        ports = [free_port() for _ in range(count)]
        voters = ",".join(f"{i + 1}@127.0.0.1:{port}" for i, port in enumerate(ports))
        cluster = random_cluster_id()
        self.brokers = [
            Broker(
                data / f"broker-{i + 1}",
                controller_port=port,
                node=Node(i + 1, voters, cluster, count, heap_megabytes),
            )
            for i, port in enumerate(ports)
        ]

    @property
    def address(self) -> str:
        """What to set bootstrap_servers to."""
        return ",".join(broker.address for broker in self.brokers)

    def start(self) -> None:
        """Start all of them, then wait until each answers."""
        try:
            for broker in self.brokers:
                broker.launch()
            for broker in self.brokers:
                broker.wait_until_up()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all of them, and not gently: the last ones would wait for a quorum in vain."""
        for broker in self.brokers:
            broker.kill()


def main() -> int:
    """Run a broker until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, help="data folder, kept (default: a temporary one)")
    parser.add_argument("--port", type=int, default=9092, help="0 picks a free one (default 9092)")
    parser.add_argument("--controller-port", type=int, default=0, help="default: a free one")
    parser.add_argument("--fetch-only", action="store_true", help="fetch Kafka, start nothing")
    args = parser.parse_args()
    temporary = None if args.data else tempfile.TemporaryDirectory(prefix="kafka-local-")
    data = args.data or Path(temporary.name)
    broker = Broker(data.absolute(), args.port, args.controller_port)
    # The same way out for both signals; the broker itself is stopped below, once.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if args.fetch_only:
            find_java()
            print(f"Kafka {kafka_version(fetch())} is in {CACHE}")
            return 0
        broker.start()
        print(f"Kafka {broker.version} answers at {broker.address}", flush=True)
        broker.wait()
        print(f"the broker ended by itself\n{broker.log_tail()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return UNAVAILABLE
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        broker.stop()
        if temporary is not None:
            temporary.cleanup()


if __name__ == "__main__":
    sys.exit(main())
