#!/bin/bash
# A small file system in memory, for tests that must see it full.
#
#   tmpfs.sh up DIR     mounts it; the last line printed is the mount point
#   tmpfs.sh down DIR   takes it down again; safe to repeat
#
# Environment: TMPFS_BYTES (default 64M). Needs root.
set -euo pipefail

verb=${1:?up or down}
mount=${2:?a directory}/tmpfs

refuse() {
    echo "$1" >&2
    exit 1
}

case $verb in
up)
    [ "$(id -u)" = 0 ] || refuse "not root"
    mkdir -p "$mount"
    mount -t tmpfs -o "size=${TMPFS_BYTES:-64M},mode=0777" none "$mount" 2>/dev/null ||
        refuse "this kernel mounts no tmpfs"
    echo "$mount"
    ;;
down)
    if mountpoint -q "$mount"; then
        umount "$mount" || umount -l "$mount"
    fi
    rm -rf --one-file-system -- "$mount"
    ;;
*) refuse "up or down, not $verb" ;;
esac
