#!/bin/bash
# A btrfs on a loop device, with quota groups that are held, for root as well. A directory gets a
# quota by being a subvolume:
#
#   btrfs subvolume create DIR; btrfs qgroup limit 10M DIR
#
#   btrfs.sh up DIR     makes and mounts it; the last line printed is the mount point
#   btrfs.sh down DIR   takes it down again; safe to repeat
#
# Environment: BTRFS_BYTES (default 1G).
# Needs root and loop devices; the last line on standard error says what is missing.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

verb=${1:?up or down}
dir=${2:?a directory}
image=$dir/btrfs.img
mount=$dir/btrfs
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

up() {
    [ "$(id -u)" = 0 ] || refuse "not root"
    need mkfs.btrfs:btrfs-progs
    mkdir -p "$mount"
    truncate -s "${BTRFS_BYTES:-1G}" "$image"
    mkfs.btrfs -q -f "$image" >&2 || refuse "mkfs.btrfs failed"
    mount -o loop "$image" "$mount" 2>/dev/null ||
        refuse "this kernel mounts no loop device as btrfs"
    btrfs quota enable "$mount" >&2 || {
        down
        refuse "this kernel has no quota groups"
    }
    chmod 1777 "$mount"
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
