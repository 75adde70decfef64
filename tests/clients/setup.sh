#!/bin/bash
# Makes the environment of one client, outside of the repository's own files, and prints the
# program that runs it as the last line of standard output.
#
#   setup.sh tus DIR              Python with aiotusclient and tuspy
#   setup.sh backend-VERSION DIR  Python >= 3.13 with the SDK and the Manager of that version
#   setup.sh node DIR             Node.js beside node_modules with tus-js-client
#   setup.sh vendor-NAME DIR      Python with a storage vendor's client, see ../simulators/clients
#
# Versions are pinned in this directory. A second call with the same pins does nothing.
# When something cannot be had, the last line of standard error says what, and the exit is 75.
set -euo pipefail

name=${1:?a name}
dir=${2:?a directory}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

refuse() {
    echo "$1" >&2
    exit 75
}

# Is this interpreter at least the version that the packages ask for?
new_enough() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 13))' 2>/dev/null
}

# The first Python >= 3.13 on this machine, else one that is unpacked from a newer Debian.
python_3_13() {
    local candidate
    for candidate in python3.13 python3.14 python3 "$HOME"/.pyenv/versions/3.1[3-9]*/bin/python; do
        if [ -z "${CLIENTS_PYTHON_FROM_DEBIAN:-}" ] && candidate=$(command -v "$candidate") &&
            new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    bash "$here/debian-python.sh" "$dir/debian-python"
}

# make_venv PYTHON REQUIREMENTS
make_venv() {
    local python=$1 pins=$2 venv=$dir/$name
    local stamp
    stamp=$("$python" --version; sha256sum <"$pins")
    if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
        rm -rf "$venv"
        "$python" -m venv "$venv" >&2 || refuse "$python cannot make a virtual environment"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 2 \
            --timeout 30 --prefer-binary --requirement "$pins" >&2 ||
            refuse "the packages of $(basename "$pins") cannot be installed"
        echo "$stamp" >"$venv/stamp"
    fi
    echo "$venv/bin/python"
}

# vendor_python NAME: clients that are not kept up any more need an older Python.
vendor_python() {
    local candidate
    if [ "$1" = purity-fb ]; then
        for candidate in python3.11 /usr/bin/python3.11 python3.10 python3.9; do
            if command -v "$candidate"; then return; fi
        done
        return 1
    fi
    command -v python3
}

make_node() {
    local modules=$dir/node stamp
    command -v node >/dev/null && command -v npm >/dev/null || refuse "no node or no npm"
    stamp=$(node --version; sha256sum <"$here/package-lock.json")
    if [ "$(cat "$modules/stamp" 2>/dev/null)" != "$stamp" ]; then
        rm -rf "$modules"
        mkdir -p "$modules"
        cp "$here/package.json" "$here/package-lock.json" "$modules/"
        (cd "$modules" && npm ci --no-audit --no-fund --loglevel=error >&2) ||
            refuse "tus-js-client cannot be installed"
        echo "$stamp" >"$modules/stamp"
    fi
    echo "$modules"
}

mkdir -p "$dir"
exec 9>"$dir/$name.lock"
flock 9 # two tests may want the same environment

case $name in
tus)
    command -v python3 >/dev/null || refuse "no python3"
    make_venv "$(command -v python3)" "$here/tus.txt"
    ;;
backend-*)
    python=$(python_3_13) || refuse "no Python >= 3.13 here, and none to be had"
    make_venv "$python" "$here/$name.txt"
    ;;
vendor-*)
    pins=$here/../simulators/clients/${name#vendor-}.txt
    python=$(vendor_python "${name#vendor-}") || refuse "no Python that this client works with"
    make_venv "$python" "$pins"
    ;;
node) make_node ;;
*) refuse "no client $name" ;;
esac
