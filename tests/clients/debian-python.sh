#!/bin/bash
# Unpacks a Python 3.13 of Debian 13 into a directory, without installing anything, and prints
# its path. For machines whose own Python is older.
#
#   debian-python.sh DIR
#
# It runs with the C library that it was built for: interpreter and library path are written
# into the program, so virtual environments made from it work too. The packages come from the
# mirror that this machine's apt already uses, checked with the keyring that it has.
set -euo pipefail

dir=${1:?a directory}
root=$dir/root
python=$root/usr/bin/python3.13
suite=trixie
packages=(python3.13 python3.13-minimal python3.13-venv libpython3.13-stdlib
    libpython3.13-minimal python3-pip-whl libc6 libgcc-s1 libstdc++6 zlib1g libssl3t64
    libexpat1 libffi8 libsqlite3-0 libbz2-1.0 liblzma5 libuuid1 libncursesw6 libtinfo6
    libreadline8t64 libcrypt1 libzstd1 media-types tzdata)

refuse() {
    echo "$1" >&2
    exit 75
}

mirror() {
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null || true; } |
        grep -v '^[[:space:]]*#' | grep -oE 'https?://[^ ]*/debian/?( |$)' | head -1 | tr -d ' '
}

[ -x "$python" ] && [ -e "$dir/done" ] && echo "$python" && exit
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || refuse "not root, or no apt-get"
from=$(mirror) && [ -n "$from" ] || refuse "apt has no Debian mirror"

rm -rf "$dir"
mkdir -p "$dir/lists/partial" "$dir/deb" "$root"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $from $suite main" >"$dir/sources.list"
options=(-q -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=-
    -o Dir::State::lists="$dir/lists" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root
    -o Acquire::Retries=2)
apt-get "${options[@]}" update >&2 || refuse "the lists of $suite cannot be had"
(cd "$dir/deb" && apt-get "${options[@]}" download "${packages[@]}" >&2) ||
    refuse "the packages of $suite cannot be had"
for package in "$dir"/deb/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
if ! command -v patchelf >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=300 install patchelf >&2 || refuse "no patchelf"
fi
libraries=$root/usr/lib/x86_64-linux-gnu
patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" \
    --force-rpath --set-rpath "$libraries" "$python" || refuse "patchelf failed"
# Its own packaging tools lie in the unpacked tree, not where Debian installs them.
sed -i "s|'/usr/share/python-wheels/'|'$root/usr/share/python-wheels/'|" \
    "$root"/usr/lib/python3.13/_sysconfigdata*.py
"$python" -c 'import ssl, sqlite3, ctypes, zlib' || refuse "the unpacked Python does not run"
rm -rf "$dir/deb" "$dir/lists"
touch "$dir/done"
echo "$python"
