#!/bin/bash
# An XFS with project quotas that are held, in a guest.
#
#   xfs-prjquota.sh up DIR, exec DIR CMD ARG.., down DIR: see guest.sh
set -euo pipefail
KIND=xfs-prjquota exec bash "$(dirname "${BASH_SOURCE[0]}")/guest.sh" "$@"
