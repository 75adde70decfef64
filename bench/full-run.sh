#!/bin/bash
# Makes docs/benchmarks.md: every workload in a run of its own, so that one that breaks, or is
# repeated, costs the others nothing.
#
#   bash bench/full-run.sh DIR [WORKLOAD ...]
#
# DIR keeps the JSON of each row; run again with names to repeat these rows. Environment: PEERS
# (names with commas; all that are installed without it), ROUNDS (5), FILES (where the files lie;
# 6 GiB), LOCK (a file that is locked for each row, where the machine is shared).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
results=$1
shift
mkdir -p "$results"
bench=${CARGO_TARGET_DIR:-target}/release/storage-bench
mapfile -t rows < <("$bench" list | cut -d' ' -f1 | grep -v '\.small$')
[ $# -eq 0 ] || rows=("$@")
for row in "${rows[@]}"; do
    options=(--workload "$row" --rounds "${ROUNDS:-5}" --json "$results/$row.json")
    [ -z "${PEERS:-}" ] || options+=(--peers "$PEERS")
    [ -z "${FILES:-}" ] || options+=(--dir "$FILES")
    # A row that failed is a row of the report, too.
    flock "${LOCK:-$results/lock}" "$bench" run "${options[@]}" || echo "$row: failed"
done
"$bench" report "$results"/*.json --html "$results/benchmarks.html" \
    --markdown docs/benchmarks.md >"$results/table.txt" || true
echo "docs/benchmarks.md and $results/benchmarks.html are written"
