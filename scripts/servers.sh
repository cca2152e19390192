#!/usr/bin/env bash
# Puts real database servers on this machine, for tests, for `crossfade demo` and for benchmarks.
#
#   scripts/servers.sh [--mysql] [--mariadb] [--clock] [--build] [--rivals] [--force]
#
#   --mysql     MySQL, unpacked into target/servers/mysql-<version>. Changes nothing on the system, needs no root.
#   --mariadb   MariaDB from the distribution (the server program only: no service is installed or started).
#   --clock     libfaketime, unpacked into target/servers/faketime: tests run servers whose clock is off.
#   --build     the C compiler and make that building crossfade needs, where they are missing.
#   --rivals    mydumper and percona-toolkit, which benchmarks measure beside crossfade. Only when asked for.
#   --force     unpacks MySQL again, also when it is there.
#
# Without any of the first five it does the first four. It is safe to run again (nothing happens when all is there) and to
# run twice at once (the second waits for the first). Progress goes to stderr. Run it as root, or as a user who may
# use sudo; sudo is only used where a package of the system is missing.
#
# CROSSFADE_SERVERS_DIR puts the unpacked servers elsewhere than target/servers.
#
# Tested on Debian 12. Debian 13 takes the same way, and on Ubuntu its own mysql-server-core is unpacked: both untested.
#
# How MySQL gets here: Debian's stable releases carry no MySQL server, its suite `sid` does. A private apt state (own
# lists, own cache, empty status file, so that every library is resolved from sid as well) downloads the packages
# from the mirror that the machine's own apt sources name; apt verifies them against the distribution's archive
# key. They are unpacked, not installed, and started through their own dynamic loader, because they
# need a newer libc than the machine's. The wrappers in bin/ know how.

set -euo pipefail
export LC_ALL=C

# The releases that crossfade is tested with; crates/servers/src/place.rs looks where they are put.
readonly wanted_mysql="9.7"
readonly wanted_mariadb="10.11"
# Up to 10.11.14 at least, MariaDB loses JSON objects of a JSON_TABLE inside a view (found by the tests; 10.11.19 is good).
readonly least_mariadb="10.11.18"

workspace="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly workspace
readonly servers_dir="${CROSSFADE_SERVERS_DIR:-$workspace/target/servers}"
staging=""

say() { printf 'servers: %s\n' "$*" >&2; }

# fail WHAT [NEXT STEP]
fail() {
    printf 'servers: error: %s\n' "$1" >&2
    if [[ -n "${2:-}" ]]; then printf 'servers: next: %s\n' "$2" >&2; fi
    exit 1
}

usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "${BASH_SOURCE[0]}"; }

# Runs a command quietly; shows its output only when it fails.
quietly() {
    local log status=0
    log="$(mktemp)"
    "$@" >"$log" 2>&1 || status=$?
    if ((status != 0)); then sed 's/^/servers:   | /' "$log" | tail -n 20 >&2; fi
    rm -f "$log"
    return "$status"
}

# --- the distribution --------------------------------------------------------------------------------------------

# shellcheck source=/dev/null
distribution() { (. /etc/os-release && printf '%s' "${ID:-unknown}"); }
# shellcheck source=/dev/null
codename() { (. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}"); }

# One line per source of the machine's own apt configuration: "uri suite signed-by-or-dash", main component only.
own_apt_sources() {
    local etc="/etc/apt" files=()
    shopt -s nullglob
    files=("$etc"/sources.list.d/*.sources)
    # Stanzas of "Key: value" (deb822). A line that starts with a space continues the one before; an embedded key in
    # Signed-By shows as an empty value and counts as none.
    if ((${#files[@]})); then
        awk '
            function flush(   i, j, n, m, uri, suite, key) {
                if (types ~ /(^| )deb( |$)/ && tolower(enabled) != "no" && (" " components " ") ~ / main /) {
                    key = (signed ~ /^\//) ? signed : "-"
                    split(key, keys, " ")
                    n = split(uris, uri, " "); m = split(suites, suite, " ")
                    for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) print uri[i], suite[j], keys[1]
                }
                types = uris = suites = components = signed = enabled = field = ""
            }
            FNR == 1 { flush() }
            /^[ \t]*#/ { next }
            /^[ \t]*$/ { flush(); next }
            /^[ \t]/ { value = $0 }
            !/^[ \t]/ { colon = index($0, ":"); field = tolower(substr($0, 1, colon - 1)); value = substr($0, colon + 1) }
            {
                gsub(/[ \t\r]+/, " ", value); sub(/^ /, "", value); sub(/ $/, "", value)
                if (field == "types") types = types " " value
                else if (field == "uris") uris = uris " " value
                else if (field == "suites") suites = suites " " value
                else if (field == "components") components = components " " value
                else if (field == "enabled") enabled = value
                else if (field == "signed-by" && signed == "") signed = value
            }
            END { flush() }
        ' "${files[@]}"
    fi
    # Lines of "deb [options] uri suite components" (classic).
    files=("$etc"/sources.list "$etc"/sources.list.d/*.list)
    local existing=() file
    for file in "${files[@]}"; do if [[ -r "$file" ]]; then existing+=("$file"); fi; done
    if ((${#existing[@]})); then
        awk '
            $1 != "deb" { next }
            {
                line = $0; sub(/^deb[ \t]+/, "", line); key = "-"
                if (line ~ /^\[/) {
                    options = substr(line, 2, index(line, "]") - 2); sub(/^\[[^]]*\][ \t]*/, "", line)
                    n = split(options, option, /[ \t]+/)
                    for (i = 1; i <= n; i++) if (option[i] ~ /^signed-by=\//) { key = substr(option[i], 11); sub(/,.*/, "", key) }
                }
                sub(/#.*/, "", line)
                n = split(line, part, /[ \t]+/)
                for (i = 3; i <= n; i++) if (part[i] == "main") print part[1], part[2], key
            }
        ' "${existing[@]}"
    fi
    shopt -u nullglob
}

# The distribution's main archive as this machine knows it: "uri signed-by".
own_mirror() {
    local distribution="$1" release keyring uri suite key
    release="$(codename)"
    keyring="/usr/share/keyrings/$distribution-archive-keyring.gpg"
    while read -r uri suite key; do
        case "$uri" in *security*) continue ;; esac
        case "$suite" in
        "$release" | stable | oldstable | oldoldstable | testing | unstable | sid) ;;
        *) continue ;;
        esac
        if [[ "$key" == "-" || ! -r "$key" ]]; then key="$keyring"; fi
        printf '%s %s\n' "$uri" "$key"
        return 0
    done < <(own_apt_sources)
    return 1
}

# --- packages of the system --------------------------------------------------------------------------------------

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        fail "$wanted_packages: missing, and this user is neither root nor has sudo" \
            "run as root: apt-get update && apt-get install $wanted_packages"
    fi
}

wanted_packages=""

refresh_package_lists() {
    wanted_packages="${wanted_packages:-mariadb-server-core mariadb-client}"
    say "refreshing the package lists"
    quietly as_root apt-get -o DPkg::Lock::Timeout=300 update ||
        fail "apt-get update failed (see above)" "see that the machine reaches its package mirror, then run $0 again"
}

# Installs packages of the distribution; refreshes the package lists only where they turn out to be missing or old.
install_packages() {
    wanted_packages="$*"
    command -v apt-get >/dev/null ||
        fail "this machine has no apt-get, so $* cannot be installed" "install them with the system's own tool"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@")
    as_root true # Says so now if there is no way to become root, and asks for the password.
    say "installing $*"
    # Asking first spares a frightening message where the lists are merely empty.
    if apt-get install --simulate --no-install-recommends "$@" >/dev/null 2>&1 && as_root "${install[@]}" >/dev/null 2>&1; then
        return 0
    fi
    refresh_package_lists
    quietly as_root "${install[@]}" ||
        fail "apt-get could not install $* (see above)" "mend what apt-get says, then run $0 again"
}

# --- what building needs -----------------------------------------------------------------------------------------

install_build_tools() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v make >/dev/null || missing+=(make)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    # The tests' second binlog reader needs OpenSSL's headers.
    [[ -e /usr/include/openssl/ssl.h ]] || missing+=(libssl-dev)
    if ((${#missing[@]})); then install_packages "${missing[@]}"; fi
    if ! command -v cargo >/dev/null && [[ ! -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]]; then
        say "note: cargo was not found; building crossfade needs Rust (https://rustup.rs)"
    fi
}

# --- MariaDB -----------------------------------------------------------------------------------------------------

# Not every user's PATH holds the sbin folders.
mariadb_program() {
    local program
    for program in "$(command -v mariadbd || true)" /usr/sbin/mariadbd /usr/local/sbin/mariadbd; do
        if [[ -x "$program" ]]; then
            printf '%s' "$program"
            return 0
        fi
    done
    return 1
}

mariadb_version() {
    local version
    version="$("$1" --no-defaults --version)" || return 1
    sed -E 's/.*Ver ([0-9.]+)-MariaDB.*/\1/' <<<"$version"
}

# A release of the wanted series with errors that were mended since.
is_outdated() {
    local version
    version="$(mariadb_version "$1")" || return 1
    [[ "$version" == "$wanted_mariadb".* && "$(printf '%s\n' "$version" "$least_mariadb" | sort -V | head -n 1)" != "$least_mariadb" ]]
}

install_mariadb() {
    # The core package is the program alone: no service to keep down, no system account, nothing listening.
    local program version
    if ! program="$(mariadb_program)" || is_outdated "$program"; then
        # Lists from the day of a machine's image name the release of that day.
        refresh_package_lists
        install_packages mariadb-server-core mariadb-client
    fi
    program="$(mariadb_program)" || fail "the MariaDB packages are installed, but mariadbd is nowhere to be found" \
        "set CROSSFADE_MARIADBD to the program's path"
    version="$(mariadb_version "$program")" || fail "$program does not start" "run: $program --version"
    say "MariaDB $version: $program"
    if is_outdated "$program"; then
        say "note: crossfade's tests need MariaDB $least_mariadb or later of $wanted_mariadb; see that apt's sources hold the distribution's updates"
    fi
    case "$version" in
    "$wanted_mariadb".*) ;;
    *) say "note: crossfade is tested with MariaDB $wanted_mariadb; this distribution has $version" ;;
    esac
}

# --- MySQL -------------------------------------------------------------------------------------------------------

# The folder of an unpacked MySQL: the tested release where it is there, else any.
mysql_folder() {
    local folder
    for folder in "$servers_dir/mysql-$wanted_mysql" "$servers_dir"/mysql-*; do
        if [[ -x "$folder/bin/mysqld" && -f "$folder/VERSION" ]]; then
            printf '%s' "$folder"
            return 0
        fi
    done
    return 1
}

report_mysql() {
    local folder="$1" version
    version="$(<"$folder/VERSION")"
    say "MySQL $version: $folder/bin/mysqld"
    case "$version" in
    "$wanted_mysql".*) ;;
    *) say "note: crossfade is tested with MySQL $wanted_mysql; this is $version" ;;
    esac
}

# Writes $1/bin/$2, which starts the program $1/root/usr/$3 with its own loader and libraries. Everything is found from
# the wrapper's own place, so the folder may be moved. It execs: the process id is the program's own.
write_wrapper() {
    local folder="$1" name="$2" program="$3" loader="$4" library_path="$5"
    {
        cat <<WRAPPER
#!/bin/sh
# Written by scripts/servers.sh. Starts $name with the loader and the libraries that were unpacked with it.
bin="\$(dirname "\$(readlink -f "\$0")")"
root="\${bin%/bin}/root"
WRAPPER
        if [[ "$name" == mysqld ]]; then
            cat <<'WRAPPER'
# Which option files to read must be said first. Unless told otherwise: none, the system's belong to other servers.
case "${1:-}" in
--no-defaults | --defaults-file=* | --defaults-extra-file=*) files="$1"; shift ;;
*) files=--no-defaults ;;
esac
# What is given on the command line comes later, so it wins.
set -- "$files" \
    "--basedir=$root/usr" \
    "--lc-messages-dir=$root/usr/share/mysql" \
    "--character-sets-dir=$root/usr/share/mysql/charsets" \
    "--plugin-dir=$root/usr/lib/mysql/plugin" \
    --secure-file-priv= \
    "$@"
if [ "$(id -u)" = 0 ]; then
    first="$1"; shift
    set -- "$first" --user=root "$@"
fi
WRAPPER
        elif [[ "$name" == mysql* ]]; then
            cat <<'WRAPPER'
# Which option files to read must be said first. Unless told otherwise: none, the system's may be of another brand.
case "${1:-}" in
--no-defaults | --defaults-file=* | --defaults-extra-file=*) files="$1"; shift ;;
*) files=--no-defaults ;;
esac
set -- "$files" "--character-sets-dir=$root/usr/share/mysql/charsets" "--plugin-dir=$root/usr/lib/mysql/plugin" "$@"
WRAPPER
        fi
        cat <<WRAPPER
exec "\$root/$loader" --library-path "$library_path" --argv0 "\$root/usr/$program" "\$root/usr/$program" "\$@"
WRAPPER
    } >"$folder/bin/$name"
    chmod 755 "$folder/bin/$name"
}

install_mysql() {
    local distribution mirror keyring arch suites
    for tool in apt-get dpkg awk; do
        command -v "$tool" >/dev/null || fail "this machine has no $tool, so MySQL cannot be fetched from Debian" \
            "install MySQL $wanted_mysql yourself and set CROSSFADE_MYSQLD to its mysqld"
    done
    distribution="$(distribution)"
    arch="$(dpkg --print-architecture)"
    case "$distribution" in
    debian) suites="sid" ;;
    ubuntu)
        suites="$(codename) $(codename)-updates $(codename)-security"
        say "note: unpacking Ubuntu's own mysql-server-core; this way is untested"
        ;;
    *)
        fail "no way is known to get MySQL on '$distribution' (Debian and Ubuntu are)" \
            "install MySQL $wanted_mysql yourself and set CROSSFADE_MYSQLD to its mysqld"
        ;;
    esac
    read -r mirror keyring < <(own_mirror "$distribution") ||
        fail "the apt sources of this machine name no $distribution archive" \
            "look at /etc/apt/sources.list and /etc/apt/sources.list.d, then run $0 again"

    staging="$(mktemp -d "$servers_dir/.staging.XXXXXX")"
    local apt="$staging/apt" tree="$staging/mysql"
    mkdir -p "$apt"/{lists/partial,cache/archives/partial,empty,packages} "$tree"/{root,bin}
    : >"$apt/status"
    cat >"$apt/mysql.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: $suites
Components: main universe
Architectures: $arch
Targets: Packages
Signed-By: $keyring
SOURCES
    if [[ "$distribution" == debian ]]; then sed -i 's/^Components: .*/Components: main/' "$apt/mysql.sources"; fi
    # Options rather than APT_CONFIG: the machine's own configuration (proxies stay in force) would override the latter.
    local private=(
        -o "Dir::State=$apt" -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status"
        -o "Dir::Cache=$apt/cache" -o "Dir::Cache::archives=$apt/cache/archives"
        -o "Dir::Etc::sourcelist=$apt/mysql.sources" -o "Dir::Etc::sourceparts=$apt/empty"
        -o "Dir::Etc::preferences=/dev/null" -o "Dir::Etc::preferencesparts=$apt/empty"
        -o "APT::Default-Release=" -o "APT::Install-Recommends=false" -o "APT::Update::Post-Invoke-Success="
        -o "Acquire::Languages=none" -o "Acquire::Retries=3"
        # Else a list that cannot be fetched is but a warning.
        -o "APT::Update::Error-Mode=any"
    )
    # apt as root drops to a user of its own, who cannot write here.
    if ((EUID == 0)); then private+=(-o "APT::Sandbox::User=root"); fi

    say "reading the package list of $distribution $suites"
    quietly apt-get "${private[@]}" update ||
        fail "the package list of $distribution '$suites' could not be read from this machine's mirror (see above)" \
            "see that the machine reaches its mirror and that the mirror carries that suite, then run $0 again"

    # Ubuntu has the release in the name of some packages.
    local server client
    server="$(apt-cache "${private[@]}" search --names-only '^mysql-server-core(-[0-9.]+)?$' | awk '{print $1}' | sort -V | tail -n 1)"
    client="${server/server/client}"
    [[ -n "$server" ]] || fail "$distribution '$suites' has no package mysql-server-core for $arch" \
        "install MySQL $wanted_mysql yourself and set CROSSFADE_MYSQLD to its mysqld"

    # Everything below the server except what only its scripts need.
    local packages
    packages="$(apt-get "${private[@]}" install --simulate "$server" "$client" | awk '/^Inst /{print $2}' |
        grep -Ev '^(perl|libperl|libdb5|libgdbm|gcc-[0-9]+-base|libtirpc-common|libc-gconv)')" ||
        fail "apt could not resolve what $server needs" "the suite may be in motion today; run $0 again tomorrow"

    say "downloading $(wc -w <<<"$packages") packages"
    # shellcheck disable=SC2086 # one word per package
    (cd "$apt/packages" && quietly apt-get "${private[@]}" download $packages) ||
        fail "the packages could not be downloaded (see above)" "run $0 again"

    say "unpacking"
    local package
    for package in "$apt"/packages/*.deb; do
        dpkg-deb --extract "$package" "$tree/root"
    done
    rm -rf "$tree"/root/usr/share/{doc,man,lintian,locale,bug,doc-base}

    local loader library_path="" folder
    loader="$(cd "$tree/root" && find . -name 'ld-linux*.so.*' ! -type d | sed 's|^\./||' | sort | tail -n 1)"
    [[ -n "$loader" ]] || fail "the unpacked packages hold no dynamic loader" "this is a defect of $0; please report it"
    while read -r folder; do
        library_path+="${library_path:+:}\$root/$folder"
    done < <(cd "$tree/root" && find . -name '*.so*' ! -type d -printf '%h\n' | sed 's|^\./||' | sort -u |
        grep -E '^(usr/)?lib/[^/]*-linux-[^/]*(/libtcmalloc[^/]*)?$|^usr/lib/mysql(/private)?$')

    local program name
    for program in sbin/mysqld bin/mysql bin/mysqladmin bin/mysqlbinlog bin/mysqldump bin/ibd2sdi bin/innochecksum; do
        name="${program##*/}"
        if [[ -f "$tree/root/usr/$program" ]]; then write_wrapper "$tree" "$name" "$program" "$loader" "$library_path"; fi
    done

    local version series
    version="$("$tree/bin/mysqld" --version)" || fail "the unpacked mysqld does not start" "run: $0 --mysql --force"
    version="$(sed -E 's/.*Ver ([0-9]+\.[0-9]+\.[0-9]+).*/\1/' <<<"$version")"
    series="${version%.*}"
    printf '%s\n' "$version" >"$tree/VERSION"
    # Running servers keep what they have open; a new start finds the new tree.
    rm -rf "${servers_dir:?}/mysql-$series"
    mv "$tree" "$servers_dir/mysql-$series"
    if ((EUID == 0)); then chown -R --reference="$workspace" "$servers_dir/mysql-$series"; fi
}

# --- a clock that is off ------------------------------------------------------------------------------------------

install_clock() {
    local folder="$servers_dir/faketime" library
    if [[ -f "$folder/libfaketimeMT.so.1" ]]; then
        say "libfaketime: $folder/libfaketimeMT.so.1"
        return 0
    fi
    staging="$(mktemp -d "$servers_dir/.staging.XXXXXX")"
    local download=(apt-get download)
    if ((EUID == 0)); then download+=(-o "APT::Sandbox::User=root"); fi
    if ! (cd "$staging" && "${download[@]}" libfaketime >/dev/null 2>&1); then
        say "refreshing the package lists"
        quietly as_root apt-get -o DPkg::Lock::Timeout=300 update && (cd "$staging" && quietly "${download[@]}" libfaketime) ||
            fail "libfaketime could not be downloaded (see above)" "see that the machine reaches its package mirror, then run $0 again"
    fi
    dpkg-deb --extract "$staging"/libfaketime_*.deb "$staging/root"
    library="$(find "$staging/root" -name libfaketimeMT.so.1)"
    [[ -n "$library" ]] || fail "the package libfaketime holds no libfaketimeMT.so.1" "this is a defect of $0; please report it"
    mkdir -p "$folder"
    mv "$library" "$folder/"
    rm -rf "$staging"
    say "libfaketime: $folder/libfaketimeMT.so.1"
}

# --- other tools, to compare with ------------------------------------------------------------------------------------

install_rivals() {
    if ! command -v myloader >/dev/null || ! command -v pt-table-checksum >/dev/null; then
        install_packages mydumper percona-toolkit
    fi
    say "$(myloader --version), $(pt-table-checksum --version)"
}

# --- all together ------------------------------------------------------------------------------------------------

main() {
    local mysql=0 mariadb=0 clock=0 build=0 rivals=0 force=0
    while (($#)); do
        case "$1" in
        --mysql) mysql=1 ;;
        --mariadb) mariadb=1 ;;
        --clock) clock=1 ;;
        --build) build=1 ;;
        --rivals) rivals=1 ;;
        --force) force=1 ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "unknown argument '$1'" "run: $0 --help" ;;
        esac
        shift
    done
    if ((mysql + mariadb + clock + build + rivals == 0)); then mysql=1 mariadb=1 clock=1 build=1; fi

    mkdir -p "$servers_dir"
    # Started through sudo, what lands in the workspace shall still belong to its owner.
    if ((EUID == 0)); then chown --reference="$workspace" "$workspace/target" "$servers_dir" 2>/dev/null || true; fi
    exec 9>"$servers_dir/.lock"
    if ! flock --nonblock 9; then
        say "another run is at work; waiting for it"
        flock 9
    fi
    trap 'if [[ -n "$staging" ]]; then rm -rf "$staging"; fi' EXIT

    if ((build)); then install_build_tools; fi
    if ((mysql)); then
        if ((force)) || ! mysql_folder >/dev/null; then
            # What an interrupted run left behind.
            rm -rf "$servers_dir"/.staging.*
            install_mysql
        fi
        report_mysql "$(mysql_folder)"
    fi
    if ((mariadb)); then install_mariadb; fi
    if ((clock)); then install_clock; fi
    if ((rivals)); then install_rivals; fi
}

main "$@"
