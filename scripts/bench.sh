#!/usr/bin/env bash
# Measures crossfade beside the server's own replication, and beside tools that copy and compare, and writes docs/performance.md: `make bench` runs this.
#
#   QUICK=1          a first impression in a few minutes; the page is not written
#   BENCH="…"        further arguments of crossfade-bench, as in: make bench BENCH="--flavor mariadb --rounds 5"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/servers.sh --rivals
"${CARGO:-cargo}" build --release -p crossfade-cli -p crossfade-bench

arguments=(--page docs/performance.md)
if [[ -n "${QUICK:-}" && "${QUICK}" != 0 ]]; then
    arguments=(--rows 20000 --history-rows 50000 --rounds 1 --delay-seconds 10)
fi
read -ra more <<<"${BENCH:-}"
exec target/release/crossfade-bench "${arguments[@]}" "${more[@]}"
