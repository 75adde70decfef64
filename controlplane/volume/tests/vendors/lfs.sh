#!/bin/bash
# A stand-in for Lustre's program: `lfs.sh TABLE VERB ...`. TABLE is a directory with the projects
# of directories (`tag-NAME`), the limits of projects (`limit-ID`, KiB), and what goes wrong:
# `format` says how quotas are written, `fail` holds a verb that fails. Usage is a real sum.
set -euo pipefail
table=$1
shift
echo "$*" >>"$table/calls"
verb=$1
shift
if [ "$(cat "$table/fail" 2>/dev/null)" = "$verb" ]; then
    echo "lfs $verb: cannot do that: Operation not permitted" >&2
    exit 1
fi
place=${!#}
tag="$table/tag-${place##*/}"
id=
limit=
while [ $# -gt 0 ]; do
    case $1 in
    -p) id=$2 && shift ;;
    -B*) limit=${1#-B} ;;
    esac
    shift
done
case $verb in
project)
    if [ -n "$id" ]; then
        echo "$id" >"$tag"
    else
        printf '%5s %s %s\n' "$(cat "$tag" 2>/dev/null || echo 0)" \
            "$([ -e "$tag" ] && echo P || echo -)" "$place"
    fi
    ;;
setquota)
    echo "$limit" >"$table/limit-$id"
    ;;
quota)
    used=$(find "$place" -type f -printf '%s\n' | awk '{s += $1} END {print int((s + 1023) / 1024)}')
    [ "$(cat "$tag" 2>/dev/null)" = "$id" ] || used=0
    limit=$(cat "$table/limit-$id" 2>/dev/null || echo 0)
    [ "$limit" -gt 0 ] && [ "$used" -gt "$limit" ] && used="$used*"
    echo "Disk quotas for prj $id (pid $id):"
    echo '      Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace'
    case $(cat "$table/format" 2>/dev/null) in
    wrapped) printf '%s\n     %7s       0 %7s       -       2       0       0       -\n' \
        "$place" "$used" "$limit" ;;
    partial)
        printf '     %s [%s] 0 [%s] - 2 0 0 -\n' /mnt/lustre "$used" "$limit"
        echo 'Some errors happened when getting quota info.'
        exit 5
        ;;
    garbage) echo '     /mnt/lustre  -' ;;
    *) printf '     %s %7s       0 %7s       -       2       0       0       -\n' \
        /mnt/lustre "$used" "$limit" ;;
    esac
    echo "pid $id is using default file quota setting"
    ;;
*)
    echo "lfs: $verb is not known" >&2
    exit 22
    ;;
esac
