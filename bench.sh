#!/usr/bin/env bash
# Measures the system under load, and the bare servers on the same work: ./bench.sh [options]
#
#   --quick           a minute instead of twenty: shows that everything works, not how fast it is
#   --only GROUP      only this group; may be given several times. --list names them
#   --output FILE     where all figures go, as JSON (target/bench.json)
#   --report PAGE     writes the tables into this page, between its marks: docs/PERFORMANCE.md
#
# Installs what it needs, builds release binaries (and images, unless --quick, where Docker can be had, for their sizes), and brings its own servers on free ports, as durable as in production: it needs no running
# cluster, and leaves one that runs alone. Fails when a request failed or a measurement could not be made; timings are shown, never asserted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/docker_engine.sh
. scripts/docker_engine.sh

usage() { sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0"; }
fail() { echo "bench.sh: $*" >&2; exit 1; }

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || fail "cargo is missing: install Rust, https://rustup.rs"

ask_engine
# Sizes of images are left out where no engine answers. One that never answers would hold up everything.
[ "$engine" != silent ] || fail "$engine_fault"
scripts/ensure_servers.sh --for-bench
cargo build --release --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/bench" "$@"
