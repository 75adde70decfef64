#!/bin/bash
# An ext4 with project quotas that are held, but not for CAP_SYS_RESOURCE, in a guest.
#
#   ext4-prjquota.sh up DIR, exec DIR CMD ARG.., down DIR: see guest.sh
set -euo pipefail
KIND=ext4-prjquota exec bash "$(dirname "${BASH_SOURCE[0]}")/guest.sh" "$@"
