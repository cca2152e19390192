#!/usr/bin/env bash
# All tests: examples in the documentation, then the suites of the crates and the end-to-end suites, several at a time, since they
# wait more than they work. A suite's output is printed whole when the suite has ended. Nothing is left out because something else failed.
#
# With BRANDS=one, what an end-to-end suite tests on both brands of server runs on one of them, and on the other one after the next
# commit; random work runs on both even so.
#
# Tests with `time_left_of` or `pass_at_the_rate` in their name, which a busy machine would fail, run after all else, one at a time.
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
"$cargo" test --workspace --doc --no-fail-fast || status=1

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

# Of the names, those of tests that share the machine (together), or those that do not (alone).
share_of() {
    case "$1" in
        together) grep -v "$by_the_clock" || true ;;
        alone) grep "$by_the_clock" || true ;;
    esac
}

suite() {
    local how="$1" folder="$2" name="$3" program="$4" output names chosen ended=0
    output="$outputs/$how-$(basename "$program")"
    names="$("$program" --list --format terse | sed -n 's/: test$//p')" || ended=$?
    if [[ "$brands" == one && "$folder" == */tests ]]; then names="$(choose "$turn" <<<"$names")"; fi
    mapfile -t chosen < <(share_of "$how" <<<"$names")
    if ((ended == 0 && ${#chosen[@]} == 0)); then return 0; fi
    if ((ended == 0)); then
        (cd "$folder" && exec "$program" --exact "${chosen[@]}") >"$output" 2>&1 || ended=$?
    else
        echo "it does not list its tests" >"$output"
    fi
    {
        flock 9
        echo "     Running $name (${program#"$PWD"/})"
        cat "$output"
        # A suite that was killed has no result of its own.
        if ((ended != 0)); then echo "error: $name ended with $ended"; fi
    } 9>"$outputs/lock"
    return "$ended"
}
export -f choose share_of suite

# Has each suite run what is to be run together, or alone.
run_suites() {
    local how="$1" at_once="$2"
    xargs --delimiter '\n' --max-args 1 --max-procs "$at_once" \
        bash -o pipefail -c 'IFS=$'"'\t'"' read -r folder name program <<<"$2"; suite "$1" "$folder" "$name" "$program"' suite "$how" <<<"$suites"
}

brands="${BRANDS:-both}"
# In the names of tests that need the machine to themselves.
by_the_clock='time_left_of\|pass_at_the_rate'
# Without a repository always the same.
turn="$(git rev-list --count HEAD 2>/dev/null || echo 0)"
export brands by_the_clock outputs turn

# The folder of its package, the name, and the program of each.
suites="$(sed -nE 's|.*"manifest_path":"([^"]+)/Cargo.toml".*"crate_types":\["[a-z-]+"\],"name":"([a-zA-Z0-9_-]+)".*"overflow_checks":[a-z]+,"test":true\}.*"executable":"([^"]+)".*|\1\t\2\t\3|p' "$listing")"
if [[ -z "$suites" ]]; then
    echo "error: cargo lists no suite" >&2
    exit 1
fi
# The longest end-to-end suites first, so that none of them is left to run alone.
longest='convergence cutover faults refusals authority entities service'
suites="$(awk -F '\t' -v longest="$longest" '
    BEGIN { for (i = split(longest, names, " "); i > 0; i--) { rank[names[i]] = i } }
    { print ($1 ~ /\/tests$/ && $2 in rank ? rank[$2] : 99) "\t" $0 }' <<<"$suites" | sort --stable --numeric-sort --key 1,1 | cut -f 2-)"
run_suites together "${SUITES_AT_ONCE:-2}" || status=1
RUST_TEST_THREADS=1 run_suites alone 1 || status=1
exit "$status"
