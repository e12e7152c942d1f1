#!/usr/bin/env bash
# Fails if RustSec knows a fault of a package in Cargo.lock. Where its database cannot be fetched, checks the copy of the last time, if there is
# one, and warns with its date. Needs cargo-deny. Called by CI.
#
# A mirror of the database: git config --global url.https://mirror/advisory-db.insteadOf https://github.com/RustSec/advisory-db
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

FETCH_LIMIT_S=60
COPY=${CARGO_TARGET_DIR:-target}/advisories
GOOD=$COPY/last_good_check # holds a date

say() { echo "advisories: $*"; }

mkdir -p "$COPY"
config=$(mktemp)
trap 'rm -f "$config"' EXIT
cat deny.toml - >"$config" <<<"
[advisories]
db-path = '$(realpath "$COPY")/databases'"
deny() { cargo deny --all-features --config "$config" "$@"; }
check() { deny --offline check advisories; }

export -f deny
export config
if timeout "$FETCH_LIMIT_S" bash -c 'deny fetch db' >"$COPY/fetch.log" 2>&1; then
    check
    date -u +%F >"$GOOD"
    exit
elif [ $? -ne 124 ] && ! grep -q 'failed to fetch advisory database' "$COPY/fetch.log"; then
    cat "$COPY/fetch.log" >&2
    exit 1
fi
say "WARNING: on $(date -u +%F) the database cannot be fetched."
if [ -s "$GOOD" ]; then
    check
    say "WARNING: only those known at the last good check, on $(cat "$GOOD"), were checked"
else
    say "WARNING: nothing was checked, and this clone has no good check before"
fi
