#!/bin/bash
# curl, by hand: Resumable Uploads for HTTP (interop version 8) and parts over four connections.
set -euo pipefail

passed=0
check() { # NAME CONDITION...
    local name=$1
    shift
    "$@" || { echo "FAILED: $name" >&2; exit 1; }
    passed=$((passed + 1))
    echo "ok: $name"
}

token() { # PATH SIZE
    curl -sS --fail -X POST "$STORAGE_MANAGER/folder/file/upload" \
        -H "X-BackendAI-Storage-Auth-Token: $STORAGE_SECRET" \
        -d "{\"volume\":\"$STORAGE_VOLUME\",\"vfid\":\"$STORAGE_VFID\",\"relpath\":\"$1\",\"size\":$2}" |
        sed 's/.*"token": *"\([^"]*\)".*/\1/'
}

size=$((16 * 1024 * 1024))
head -c "$size" /dev/urandom >whole
half=$((size / 2))
head -c "$half" whole >first
tail -c +$((half + 1)) whole >second

url="$STORAGE_CLIENT/upload?token=$(token draft "$size")"
draft=(-sS -H 'Upload-Draft-Interop-Version: 8')
curl "${draft[@]}" -D headers -o /dev/null -X POST -H 'Upload-Complete: ?0' \
    --data-binary @first "$url"
check 'an interim 104 tells where to go on' grep -q '^HTTP/1.1 104 ' headers
check 'created' grep -q '^HTTP/1.1 201 ' headers
check 'half is there' grep -qi "^Upload-Offset: $half" headers
curl "${draft[@]}" -I -o headers "$url"
check 'HEAD says that more is to come' grep -qi '^Upload-Complete: ?0' headers
curl "${draft[@]}" -D headers -X PATCH -H "Upload-Offset: $half" -H 'Upload-Complete: ?1' \
    -H 'Content-Type: application/partial-upload' --data-binary @second "$url"
check 'complete' grep -qi '^Upload-Complete: ?1' headers
check 'the file is equal' cmp -s whole "$STORAGE_FOLDER/draft"

url="$STORAGE_CLIENT/upload?token=$(token parts "$size")"
step=$((size / 4))
for n in 3 1 0 2; do
    at=$((n * step))
    dd if=whole of="part-$n" bs="$step" skip="$n" count=1 status=none
    curl -sS --fail -X PUT -H "Content-Range: bytes $at-$((at + step - 1))/$size" \
        --data-binary "@part-$n" "$url" &
    jobs[n]=$!
done
for n in 0 1 2 3; do
    check "part $n is taken" wait "${jobs[n]}"
done
check 'the parts are the file' cmp -s whole "$STORAGE_FOLDER/parts"
curl -sS -I -o headers "$url"
check 'HEAD tells the ranges' grep -qi "^Upload-Ranges: bytes=0-$((size - 1))" headers
check 'nothing is left in .upload' test ! -e "$STORAGE_FOLDER/.upload"
echo "$passed passed, 0 failed"
