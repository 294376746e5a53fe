#!/bin/sh
# From a fresh checkout to a running demo:  sh deploy/quickstart.sh [options of demo]
#
# Makes a virtual environment in .venv, installs this package into it and runs the demo. Needs
# Python 3.11 or newer with pip, and network access to the package index. No root, no broker.
# Everything it writes is inside the checkout: .venv, .cache, demo-data. A second run starts at
# once. PYTHON=/path/to/python chooses the interpreter.
set -eu

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$here"
venv=$here/.venv
stamp=$venv/.quickstart

recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        recent "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
        python=$PYTHON
        return
    fi
    for python in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if recent "$python"; then
            return
        fi
    done
    fail "no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python sh $0"
}

# What was installed: where, from which pyproject.toml, for which Python.
wanted() {
    printf '%s\n' "$here"
    cksum <pyproject.toml
    "$venv/bin/python" -c 'import sys; print(sys.version)'
}

# Debian's python3 comes without ensurepip unless python3-venv is there; its pip can install
# into an environment that has no pip of its own.
make_venv() {
    find_python
    if [ -e "$venv" ]; then
        [ -f "$venv/pyvenv.cfg" ] || fail "$venv is there, but is no virtual environment; move it away"
        rm -rf "$venv"
    fi
    if "$python" -c 'import ensurepip' >/dev/null 2>&1; then
        "$python" -m venv "$venv" || fail "cannot make a virtual environment in $venv"
    else
        "$python" -m pip --version >/dev/null 2>&1 ||
            fail "$python has neither venv nor pip; on Debian and Ubuntu: apt install python3-venv"
        "$python" -m venv --without-pip "$venv" ||
            fail "cannot make a virtual environment in $venv; on Debian and Ubuntu: apt install python3-venv"
    fi
}

pip_install() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        set -- "$venv/bin/python" -m pip install "$@"
    else
        find_python
        set -- "$python" -m pip --python "$venv/bin/python" install "$@"
    fi
    PIP_CACHE_DIR=${PIP_CACHE_DIR:-$here/.cache/pip} PIP_DISABLE_PIP_VERSION_CHECK=1 "$@"
}

"$venv/bin/python" -c '' >/dev/null 2>&1 || make_venv
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$(wanted)" ]; then
    echo "installing into .venv (once; takes a minute or two) ..." >&2
    pip_install --quiet --editable ".[console]" ||
        fail "the installation failed; see above. Is the package index reachable?"
    wanted >"$stamp"
fi

exec "$venv/bin/python" -m monitor demo "$@"
