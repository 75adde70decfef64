#!/bin/bash
# The cluster of cephfs.sh in a guest, and the kernel's own client of it. Takes a minute to come up.
#
#   cephfs-kernel.sh up DIR, exec DIR CMD ARG.., down DIR: see guest.sh
set -euo pipefail
GUEST_MEM=${GUEST_MEM:-4G} GUEST_UP_SECONDS=${GUEST_UP_SECONDS:-240} \
    KIND=cephfs-kernel exec bash "$(dirname "${BASH_SOURCE[0]}")/guest.sh" "$@"
