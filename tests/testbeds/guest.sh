#!/bin/bash
# A Linux kernel as an ordinary process (user-mode Linux), for file systems that this machine's
# kernel lacks: project quotas, NFS. The guest sees every file of this machine at its place, and
# changes none of them; only DIR is shared for writing.
#
#   guest.sh up DIR               boots, mounts; the last line printed is the mount point
#   guest.sh exec DIR CMD ARG..   runs CMD in the guest, with this directory and environment
#   guest.sh down DIR             ends it; safe to repeat
#
# Environment: KIND: xfs-prjquota, ext4-prjquota, nfs4 or nfs3 (a server in the guest, on an XFS
# with project quotas that is mounted at /mnt/under), cephfs-kernel; GUEST_DISK_BYTES (default 2G,
# sparse), GUEST_MEM (1G), GUEST_SECONDS (default 300) for one exec, GUEST_UP_SECONDS (60);
# GUEST_SUITE: the kernel of another suite of Debian, such as trixie or sid; NFS_OPTS: further
# options of the NFS mount. Needs root; the last line on standard error says what is missing.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

verb=${1:?up, exec or down}
dir=${2:?a directory}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/packages.sh"
. "$here/kernel.sh"

alive() {
    local pid
    pid=$(cat "$dir/pid" 2>/dev/null) && grep -qs "$dir" "/proc/$pid/cmdline"
}

up() {
    local kind=${KIND:?}
    [ "$(id -u)" = 0 ] || refuse "not root"
    need linux.uml:user-mode-linux depmod:kmod ip:iproute2 mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs
    case $kind in
    nfs*) need rpc.nfsd:nfs-kernel-server mount.nfs:nfs-common rpcbind:rpcbind ;;
    ceph*) need ceph:ceph-common ceph-mon:ceph-mon ceph-mgr:ceph-mgr ceph-osd:ceph-osd \
        ceph-mds:ceph-mds ;;
    esac
    LINUX=linux.uml MODULES=$(echo /usr/lib/uml/modules/*)
    [ -z "${GUEST_SUITE:-}" ] || newer_kernel "$GUEST_SUITE"
    mkdir -p "$dir/spool" "$dir/lib/modules"
    ln -sfn "$MODULES" "$dir/lib/modules/$(basename "$MODULES")"
    [ -e "$MODULES/modules.dep" ] || depmod -b "$dir" "$(basename "$MODULES")"
    echo "${NFS_OPTS:-}" >"$dir/spool/nfs-options"
    truncate -s "${GUEST_DISK_BYTES:-2G}" "$dir/disk"
    case $kind in
    ext4*) mkfs.ext4 -q -F -O quota,project -E quotatype=prjquota "$dir/disk" >&2 ;;
    *) mkfs.xfs -q -f "$dir/disk" >&2 ;;
    esac || refuse "mkfs failed"
    setsid "$LINUX" mem="${GUEST_MEM:-1G}" ubd0="$dir/disk" uml_dir="$dir/" umid=guest root=/dev/root \
        rootfstype=hostfs rootflags=/ ro quiet con=null con0=null,fd:1 con1=null \
        init="$here/guest-init.sh" -- "$dir" "$kind" </dev/null >"$dir/console" 2>&1 &
    echo $! >"$dir/pid"
    disown
    for _ in $(seq $((10 * ${GUEST_UP_SECONDS:-60}))); do
        [ ! -e "$dir/spool/up" ] || break
        alive || break
        sleep 0.1
    done
    if [ "$(cat "$dir/spool/up" 2>/dev/null)" != 0 ]; then
        tail -n 20 "$dir/console" "$dir/spool/up.out" >&2 || true
        local last
        last=$(cat "$dir/console" "$dir/spool/up.out" 2>/dev/null | grep . | tail -n 1 || true)
        down
        refuse "the guest did not mount $kind: ${last:-it said nothing}"
    fi
    echo "/mnt/$kind"
}

run() {
    alive || refuse "the guest is not up"
    local job=$dir/spool/$$ tail rc
    umask 077
    { export -p | grep -vE '^declare -x (PWD|OLDPWD|SHLVL|_)='
        printf 'cd %q || exit 1\nexec' "$PWD" && printf ' %q' "$@" && echo; } >"$job.new"
    : >"$job.out"
    mv "$job.new" "$job.cmd"
    tail -q -n +1 -s 0.1 -f "$job.out" &
    tail=$!
    local until=$((SECONDS + ${GUEST_SECONDS:-300}))
    until [ -s "$job.rc" ]; do
        [ $SECONDS -lt $until ] && alive || { kill $tail; refuse "no end in the guest: $*"; }
        sleep 0.05
    done
    sleep 0.3
    kill $tail
    rc=$(cat "$job.rc")
    rm -f -- "$job".*
    return "$rc"
}

down() {
    local pid
    if alive; then
        pid=$(cat "$dir/pid")
        echo off >"$dir/spool/off.new" && mv "$dir/spool/off.new" "$dir/spool/off"
        for _ in $(seq 100); do alive || break; sleep 0.1; done
        # Its helper processes are in its session; a hung guest is ended by force.
        kill -9 -- "-$pid" 2>/dev/null || true
    fi
    rm -rf --one-file-system -- "$dir"/{spool,lib,disk,guest,console,pid}
}

case $verb in
up) up ;;
exec) shift 2; run "$@" ;;
down) down ;;
*) refuse "up, exec or down, not $verb" ;;
esac
