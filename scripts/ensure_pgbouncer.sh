#!/usr/bin/env bash
# Provides Debian trixie's PgBouncer for the tests on any system, and prints how to start it. Older versions lose prepared statements
# (docs/operations.md, "Behind PgBouncer"). It is not installed but unpacked, with the libraries it needs, beside cargo's output. Needs apt,
# and the network the first time, but not root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SUITE=trixie
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/pgbouncer")
program=$folder/pgbouncer

fail() {
    echo "ensure_pgbouncer: $*" >&2
    exit 1
}

unpack() {
    { command -v apt-get && command -v dpkg; } >/dev/null || fail "needs apt-get and dpkg, as Debian and Ubuntu have them"
    local work=$folder.unfinished mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian} apt package
    rm -rf "$work" "$folder"
    mkdir -p "$work"/{state/lists/partial,cache/archives/partial,root}
    touch "$work/state/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $SUITE main" >"$work/sources.list"
    # An empty system for apt, in which nothing is installed: apt then finds every package that PgBouncer needs.
    apt=(apt-get -qq -o "Dir::State=$work/state" -o "Dir::State::status=$work/state/status" -o "Dir::Cache=$work/cache"
        -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Acquire::Languages=none
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    { "${apt[@]}" update && "${apt[@]}" install -y --download-only pgbouncer; } >&2 || fail "could not download PgBouncer: see above"
    for package in "$work"/cache/archives/{lib,pgbouncer_}*.deb; do dpkg -x "$package" "$work/root"; done
    rm -rf "$work"/{state,cache,sources.list}
    # With its own loader and C library: those of this system may be older.
    cat >"$work/pgbouncer" <<'SCRIPT'
#!/bin/sh
root=$(dirname "$(realpath "$0")")/root
for libraries in "$root"/usr/lib/*-linux-gnu; do :; done
for loader in "$libraries"/ld-linux-*.so.*; do :; done
exec "$loader" --library-path "$libraries" "$root/usr/sbin/pgbouncer" "$@"
SCRIPT
    chmod -R a+rX "$work"
    chmod 755 "$work/pgbouncer"
    "$work/pgbouncer" --version >&2 || fail "what was unpacked does not start: see above"
    mv "$work" "$folder"
}

[ -x "$program" ] || unpack
echo "$program"
