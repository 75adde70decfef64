#!/bin/bash
# A cluster of Ceph, one daemon of each kind on loopback and in memory, and its CephFS by FUSE.
#
#   cephfs.sh up DIR     makes and mounts it; the last line printed is the mount point
#   cephfs.sh down DIR   takes it down again; safe to repeat
#
# Environment: CEPH_CLIENT=none: no client, for one of the kernel's; CEPH_SECONDS (90) to come up.
# Needs root, /dev/fuse, half a gigabyte; the last line on standard error says what is missing.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

verb=${1:?up or down}
dir=${2:?a directory}
mount=$dir/cephfs
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

# Daemons of this directory only, whatever number a file may name.
running() { [ -n "${1:-}" ] && grep -qs "$dir" "/proc/$1/cmdline"; }
pid_of() { cat "$dir/ceph/$1.pid" 2>/dev/null || true; }

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

configure() {
    cat >"$dir/ceph/conf" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = 127.0.0.1:$1
public addr = 127.0.0.1
ms bind port min = $(($1 + 10))
ms bind port max = $(($1 + 99))
auth cluster required = none
auth service required = none
auth client required = none
run dir = $dir/ceph
admin socket =
pid file = $dir/ceph/\$name.pid
log file = $dir/ceph/\$name.log
mon data = $dir/ceph/mon
mon data avail crit = 1
mon allow pool size one = true
mgr data = $dir/ceph/mgr
mgr disabled modules = balancer crash devicehealth orchestrator pg_autoscaler progress telemetry
mds data = $dir/ceph/mds
osd data = $dir/ceph/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
CONF
}

# A daemon that forks can hang in it on a busy machine: then all of it is tried once more.
cluster() {
    local port uuid
    mkdir -p "$dir"/ceph/{mon,mgr,mds,osd} "$mount"
    port=$(free_port)
    uuid=$(cat /proc/sys/kernel/random/uuid)
    configure "$port"
    export port uuid
    export client=${CEPH_CLIENT:-fuse} patience=$((${CEPH_SECONDS:-90} / 4))
    timeout "${CEPH_SECONDS:-90}" bash -euxc '
        daemon() { timeout "$patience" "$1" -c "$dir/ceph/conf" -i "${@:2}"; }
        admin() { timeout "$patience" ceph -c "$dir/ceph/conf" "$@"; }
        monmaptool --create --clobber --fsid "$(sed -n "s/^fsid = //p" "$dir/ceph/conf")" \
            --addv a "[v2:127.0.0.1:$port,v1:127.0.0.1:$((port + 1))]" "$dir/ceph/monmap"
        daemon ceph-mon a --mkfs --monmap "$dir/ceph/monmap"
        daemon ceph-mon a
        daemon ceph-mgr x
        admin osd new "$uuid" 0
        daemon ceph-osd 0 --mkfs --osd-uuid "$uuid"
        daemon ceph-osd 0
        daemon ceph-mds a
        admin osd pool create meta 8
        admin osd pool create data 8
        admin fs new cephfs meta data
        until admin mds stat | grep up:active; do sleep 0.2; done
        [ "$client" = fuse ] || exit 0
        timeout 20 ceph-fuse -c "$dir/ceph/conf" "$mount"
        until [ "$(stat -f -c %b "$mount")" -gt 0 ]; do sleep 0.2; done
        echo 1 >"$mount/.try" && sync "$mount/.try" && rm "$mount/.try"
    ' >"$dir/ceph/setup" 2>&1
}

up() {
    [ "$(id -u)" = 0 ] || refuse "not root"
    [ "${CEPH_CLIENT:-fuse}" = none ] || {
        [ -e /dev/fuse ] || refuse "no /dev/fuse"
        need ceph-fuse:ceph-fuse
    }
    need ceph:ceph-common ceph-mon:ceph-mon ceph-mgr:ceph-mgr ceph-osd:ceph-osd ceph-mds:ceph-mds
    export dir mount
    cluster || { down && cluster; } || {
        tail -n 5 "$dir"/ceph/{*.log,setup} >&2 || true
        down
        refuse "the cluster did not come up"
    }
    chmod 1777 "$mount"
    echo "$mount"
}

down() {
    local name pid
    ! mountpoint -q "$mount" || timeout 20 umount "$mount" || umount -l "$mount"
    for name in client.admin mds.a osd.0 mgr.x mon.a; do
        pid=$(pid_of "$name")
        ! running "$pid" || kill "$pid"
        for _ in $(seq 50); do running "$pid" || break; sleep 0.1; done
        ! running "$pid" || kill -9 "$pid"
    done
    # One that hung before it wrote its number.
    for pid in /proc/[0-9]*; do
        ! grep -qs "$dir/ceph/conf" "$pid/cmdline" || kill -9 "${pid#/proc/}" 2>/dev/null || true
    done
    rm -rf --one-file-system -- "$dir/ceph" "$mount"
}

case $verb in
up) up ;;
down) down ;;
*) refuse "up or down, not $verb" ;;
esac
