#!/usr/bin/env bash
# Measures crossfade beside the server's own replication, and beside tools that copy and compare, and writes docs/performance.md: `make bench` runs this.
#
#   QUICK=1          a first impression in a few minutes; the page is not written
#   BENCH="…"        further arguments of crossfade-bench, as in: make bench BENCH="--flavor mariadb --rounds 5"
#
# All of it takes some hours, since a server's own replication is slow where each transaction has one row: with 100,000 changes
# about two and a half, with BENCH="--rows 300000" about six. It can be taken in parts, of which each leaves the others as they are:
# BENCH="--workload w1,w2 --flavor mysql --add docs/performance.json"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/servers.sh --rivals
# Twice: first without a message table, to measure what that costs. Both builds share all that does not depend on it. What was built
# first is moved away at once: nobody is to run it by mistake.
"${CARGO:-cargo}" build --release -p crossfade-cli -p crossfade-bench --features crossfade-cli/without-messages
mv --force target/release/crossfade target/release/crossfade-bare
"${CARGO:-cargo}" build --release -p crossfade-cli -p crossfade-bench

arguments=(--page docs/performance.md)
if [[ -n "${QUICK:-}" && "${QUICK}" != 0 ]]; then
    arguments=(--rows 15000 --history-rows 50000 --rounds 1 --delay-seconds 10 --rate 200 --growth-messages 10000,100000)
fi
read -ra more <<<"${BENCH:-}"
exec target/release/crossfade-bench "${arguments[@]}" "${more[@]}"
