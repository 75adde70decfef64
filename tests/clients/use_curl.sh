#!/bin/bash
# curl, as in the README: a big file up and down, a resumed download, a resumed upload.
# STORAGE_TEST_BIG_MIB sets the size of the big file (1024).
set -euo pipefail

size=$((${STORAGE_TEST_BIG_MIB:-1024} * 1024 * 1024))
curl=(curl --silent --show-error --fail-with-body --max-time 600)
passed=0

check() {
    local name=$1
    shift
    if ! "$@"; then
        echo "FAILED: $name" >&2
        exit 1
    fi
    passed=$((passed + 1))
    echo "ok: $name"
}

# token PATH JSON-MEMBERS
token() {
    local answer
    answer=$("${curl[@]}" -X POST "$STORAGE_MANAGER$1" \
        -H "X-BackendAI-Storage-Auth-Token: $STORAGE_SECRET" -H 'Content-Type: application/json' \
        -d "{\"volume\":\"$STORAGE_VOLUME\",\"vfid\":\"$STORAGE_VFID\",$2}")
    answer=${answer#*\"token\":}
    answer=${answer#*\"}
    echo "${answer%%\"*}"
}

# patch TOKEN OFFSET FILE [OPTIONS]
patch() {
    "${curl[@]}" -X PATCH "$STORAGE_CLIENT/upload?token=$1" -H 'Tus-Resumable: 1.0.0' \
        -H "Upload-Offset: $2" -H 'Content-Type: application/offset+octet-stream' \
        -T "$3" -o /dev/null -w '%{http_code}' "${@:4}"
}

cd "$STORAGE_SCRATCH"
head -c 33554432 /dev/urandom >block
while [ "$(stat -c %s big 2>/dev/null || echo 0)" -lt "$size" ]; do cat block >>big; done
truncate -s "$size" big

check "the big file goes up" [ "$(patch "$(token /folder/file/upload "\"relpath\":\"big\",\"size\":$size")" 0 big)" = 204 ]
check "it is equal" cmp -s big "$STORAGE_FOLDER/big"
down=$(token /folder/file/download '"relpath":"big"')
"${curl[@]}" "$STORAGE_CLIENT/download?token=$down" -o copy
check "it comes down equal" cmp -s big copy

truncate -s $((size / 3)) copy
"${curl[@]}" -C - "$STORAGE_CLIENT/download?token=$down" -o copy
check "a download is resumed" cmp -s big copy

head -c 1000000 big >part
up=$(token /folder/file/upload "\"relpath\":\"resumed\",\"size\":$(stat -c %s big)")
check "a part goes up" [ "$(patch "$up" 0 part)" = 204 ]
offset=$("${curl[@]}" -I "$STORAGE_CLIENT/upload?token=$up" | tr -d '\r' |
    sed -n 's/^[Uu]pload-[Oo]ffset: //p')
check "HEAD tells the offset" [ "$offset" = 1000000 ]
tail -c +1000001 big >rest
check "the rest goes up" [ "$(patch "$up" "$offset" rest)" = 204 ]
check "it is equal" cmp -s big "$STORAGE_FOLDER/resumed"

name=$(cd "$(mktemp -d -p .)" && "${curl[@]}" -OJ "$STORAGE_CLIENT/download?token=$down" && ls)
check "curl takes the offered name" [ "$name" = big ]
status=$(curl --silent -o /dev/null -w '%{http_code}' "$STORAGE_CLIENT/download?token=wrong")
check "a wrong token is a 400" [ "$status" = 400 ]
mkdir -p "$STORAGE_FOLDER/pack/sub"
cp part "$STORAGE_FOLDER/pack/sub/part"
"${curl[@]}" "$STORAGE_CLIENT/download?archive=true&token=$(token /folder/file/download '"relpath":"pack"')" -o pack.zip
check "an archive is whole" python3 -m zipfile -t pack.zip
echo "$passed passed, 0 failed"
