#!/bin/bash
# NFS 4.2, or 3 with NFS_VERS=3, from a server on an XFS with project quotas, in a guest.
#
#   nfs.sh up DIR, exec DIR CMD ARG.., down DIR: see guest.sh
set -euo pipefail
KIND=nfs${NFS_VERS:-4} exec bash "$(dirname "${BASH_SOURCE[0]}")/guest.sh" "$@"
