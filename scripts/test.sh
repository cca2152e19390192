#!/usr/bin/env bash
# All tests: those of the crates one after the other, then the end-to-end suites, several at a time, since they wait more than
# they work. A suite's output is printed whole when the suite has ended. Nothing is left out because something else failed.
#
# With BRANDS=one, what an end-to-end suite tests on both brands of server runs on one of them, and on the other one after the next
# commit; random work runs on both even so.
#
# CARGO, TEST_THREADS (tests at a time in a suite), SUITES_AT_ONCE, BRANDS
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo="${CARGO:-cargo}"
export RUST_TEST_THREADS="${TEST_THREADS:-2}"

listing="$(mktemp)"
outputs="$(mktemp -d)"
trap 'rm -rf "$listing" "$outputs"' EXIT

# Everything at once, so that nothing is compiled twice for other features; with it the program, which the suites start.
"$cargo" test --workspace --no-run --message-format json-render-diagnostics >"$listing"

status=0
"$cargo" test --workspace --exclude crossfade-tests --no-fail-fast || status=1

# Of each two tests that differ by the brand in their names, the one whose turn it is; whatever has no such partner; and all of
# what must run on both.
choose() {
    awk -v turn="$1" '
        { names[NR] = $0; there[$0] = 1 }
        END {
            for (i = 1; i <= NR; i++) {
                name = names[i]; partner = name
                if (!sub(/mysql/, "mariadb", partner)) { sub(/mariadb/, "mysql", partner) }
                if (name == partner || !(partner in there) || name ~ /random_work/) { print name }
                else if (name ~ /mysql/) { print (pairs++ + turn) % 2 ? name : partner }
            }
        }'
}

suite() {
    local name="$1" program="$2" output chosen=()
    output="$outputs/$(basename "$program")"
    if [[ "$brands" == one ]]; then
        mapfile -t chosen < <("$program" --list --format terse | sed -n 's/: test$//p' | choose "$turn")
        chosen=(--exact "${chosen[@]}")
    fi
    local ended=0
    (cd tests && exec "$program" "${chosen[@]}") >"$output" 2>&1 || ended=$?
    {
        flock 9
        echo "     Running $name (${program#"$PWD"/})"
        cat "$output"
        # A suite that was killed has no result of its own.
        if ((ended != 0)); then echo "error: $name ended with $ended"; fi
    } 9>"$outputs/lock"
    return "$ended"
}
export -f choose suite
brands="${BRANDS:-both}"
# Without a repository always the same.
turn="$(git rev-list --count HEAD 2>/dev/null || echo 0)"
export brands outputs turn

suites="$(sed -nE 's|.*#crossfade-tests@.*"crate_types":\["[a-z]+"\],"name":"([a-z_]+)".*"executable":"([^"]+)".*|\1\t\2|p' "$listing")"
if [[ -z "$suites" ]]; then
    echo "error: cargo lists no end-to-end suite" >&2
    exit 1
fi
xargs --delimiter '\n' --max-args 1 --max-procs "${SUITES_AT_ONCE:-2}" \
    bash -c 'IFS=$'"'\t'"' read -r name program <<<"$1"; suite "$name" "$program"' suite <<<"$suites" || status=1
exit "$status"
