#!/bin/bash
# Kernels for guest.sh that are newer than this Debian's; sourced, after packages.sh.
set -euo pipefail

# newer_kernel SUITE: fetches the user-mode kernel of another suite of Debian, once, and sets LINUX
# and MODULES. It was built for a newer C library, which is put beside it.
newer_kernel() {
    local at=${TESTBED_CACHE:-/var/tmp/storage-testbeds}/uml-$1 loader deb options
    if [ ! -x "$at/linux" ]; then
        need patchelf:patchelf dpkg-deb:dpkg
        mkdir -p "$at/lists/partial"
        local key=/usr/share/keyrings/debian-archive-keyring.gpg
        echo "deb [signed-by=$key] http://deb.debian.org/debian $1 main" >"$at/sources.list"
        options=(-q -o "Dir::Etc::SourceList=$at/sources.list" -o Dir::Etc::SourceParts=-
            -o "Dir::State::Lists=$at/lists" -o Dir::State::status=/dev/null
            -o APT::Sandbox::User=root)
        (
            cd "$at"
            apt-get "${options[@]}" update
            apt-get "${options[@]}" download user-mode-linux libc6
            for deb in *.deb; do dpkg-deb -x "$deb" .; done
            rm -f -- *.deb
        ) >&2 || refuse "the kernel of $1 cannot be fetched"
        loader=$(find "$at" -name ld-linux-x86-64.so.2 -type f | head -n 1)
        patchelf --set-interpreter "$loader" --set-rpath "$(dirname "$loader")" \
            --output "$at/linux" "$at/usr/bin/linux.uml" || refuse "patchelf failed"
    fi
    LINUX=$at/linux
    MODULES=$(echo "$at"/usr/lib/uml/modules/*)
}
