#!/bin/bash
# An XFS on a loop device, for tests that must hold on more than one file system.
#
#   xfs.sh up DIR     makes and mounts it; the last line printed is the mount point
#   xfs.sh down DIR   takes it down again; safe to repeat
#
# Environment: XFS_BYTES (default 600M; mkfs.xfs takes no less than 300M).
# Needs root and loop devices; the last line on standard error says what is missing.
set -euo pipefail

verb=${1:?up or down}
dir=${2:?a directory}
image=$dir/xfs.img
mount=$dir/xfs

refuse() {
    echo "$1" >&2
    exit 1
}

up() {
    [ "$(id -u)" = 0 ] || refuse "not root"
    if ! command -v mkfs.xfs >/dev/null; then
        command -v apt-get >/dev/null || refuse "no mkfs.xfs and no apt-get"
        export DEBIAN_FRONTEND=noninteractive
        local options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=300)
        { apt-get "${options[@]}" install xfsprogs ||
            { apt-get -q update && apt-get "${options[@]}" install xfsprogs; }; } >&2 ||
            refuse "xfsprogs cannot be installed"
    fi
    mkdir -p "$mount"
    truncate -s "${XFS_BYTES:-600M}" "$image"
    mkfs.xfs -q -f "$image" >&2 || refuse "mkfs.xfs failed"
    mount -o loop "$image" "$mount" 2>/dev/null || refuse "this kernel mounts no loop device as XFS"
    echo "$mount"
}

down() {
    if mountpoint -q "$mount"; then
        umount "$mount" || umount -l "$mount"
    fi
    rm -rf --one-file-system -- "$image" "$mount"
}

case $verb in
up) up ;;
down) down ;;
*) refuse "up or down, not $verb" ;;
esac
