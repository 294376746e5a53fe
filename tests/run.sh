#!/bin/sh
# Installs what the tests need into .cache/ of the checkout, and runs all of them.
# Arguments go to pytest:  sh tests/run.sh tests/unit -k decode
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

find_python() {
    for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    say "Python 3.11 or later is needed: install it, or set PYTHON to its path"
    return 1
}

has_java() {
    command -v mvn >/dev/null 2>&1 || return 1
    major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge 17 ]
}

# Root on a Debian-like machine gets Java and Maven, with which Kafka is fetched. Anyone else,
# and any failure here, is left to the tests: they say in their closing line what is missing.
install_java() {
    [ -z "${KAFKA_BOOTSTRAP_SERVERS:-}" ] || return 0
    if has_java || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then return 0; fi
    say "installing Java and Maven for the Kafka tests"
    log=.cache/apt.log
    { apt-get update && { DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends openjdk-17-jre-headless maven ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y \
            --no-install-recommends default-jre-headless maven; }; } >"$log" 2>&1 ||
        say "that failed, see $log"
}

# PostgreSQL likewise, for the quarantine store. The tests start a cluster of their own.
install_postgres() {
    for found in /usr/lib/postgresql/*/bin/initdb; do [ -e "$found" ] && return 0; done
    if command -v initdb >/dev/null 2>&1 || [ "$(id -u)" != 0 ] ||
        ! command -v apt-get >/dev/null 2>&1; then return 0; fi
    say "installing PostgreSQL for the tests of the quarantine store"
    log=.cache/apt-postgres.log
    # The package would start a server of the machine's; nobody asked for that.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends postgresql; } >"$log" 2>&1 || say "that failed, see $log"
}

# Likewise the browser for the console's tests.
install_chromium() {
    if command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1; then
        return 0
    fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then return 0; fi
    say "installing Chromium for the console's tests"
    log=.cache/apt-chromium.log
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends chromium; } >"$log" 2>&1 || say "that failed, see $log"
}

# A virtual environment of our own, made anew when pyproject.toml or the Python changes.
prepare() {
    venv=.cache/venv-test
    wanted=$("$1" -c 'import hashlib, sys
print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest(), sys.version)')
    wanted="$wanted $(pwd)"
    if [ -f "$venv/ready" ] && [ "$(cat "$venv/ready")" = "$wanted" ]; then return 0; fi
    say "installing the package and its test tools into $venv"
    rm -rf "$venv"
    if ! "$1" -m venv "$venv"; then
        say "no virtual environment could be made: install the venv module (python3-venv)"
        return 1
    fi
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -e '.[test]'
    printf '%s\n' "$wanted" >"$venv/ready"
}

# Prometheus and Alertmanager are only unpacked, into .cache/prometheus.
unpack_prometheus() {
    command -v apt-get >/dev/null 2>&1 || return 0
    log=.cache/apt-prometheus.log
    .cache/venv-test/bin/python -m tests.checks.prometheus >"$log" 2>&1 || {
        # A fresh machine has no lists of packages yet.
        [ "$(id -u)" = 0 ] && apt-get update >>"$log" 2>&1 &&
            .cache/venv-test/bin/python -m tests.checks.prometheus >>"$log" 2>&1
    } || say "Prometheus cannot be had, see $log"
}

python=$(find_python)
mkdir -p .cache
install_java
install_postgres
install_chromium
prepare "$python"
unpack_prometheus
# pytest takes the place of this shell, so that its summary is the last line and its exit code
# ours. It starts the broker and stops it, by its own process id.
# Three workers, each with a broker of its own: many tests wait for brokers and browsers. Each
# takes what comes next, or all tests of a module that share what is costly to set up.
# What is covered: add --cov, which takes a third longer.
exec .cache/venv-test/bin/python -m pytest -n 3 --dist loadgroup "$@"
