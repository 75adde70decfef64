#!/bin/bash
# Packages of Debian for the scripts here; sourced.
set -euo pipefail

refuse() {
    echo "$1" >&2
    exit 1
}

# need COMMAND:PACKAGE ... installs the packages whose command is missing, without starting what
# is in them.
need() {
    local item missing=() policy=/usr/sbin/policy-rc.d
    for item in "$@"; do command -v "${item%%:*}" >/dev/null || missing+=("${item##*:}"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || refuse "missing, and no apt-get: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local options=(-y -q --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300)
    if [ -e "$policy" ]; then policy=; else
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    fi
    local rc=0
    { apt-get "${options[@]}" install "${missing[@]}" ||
        { apt-get -q update && apt-get "${options[@]}" install "${missing[@]}"; }; } >&2 || rc=1
    [ -z "$policy" ] || rm -f "$policy"
    [ $rc = 0 ] || refuse "cannot be installed: ${missing[*]}"
}
