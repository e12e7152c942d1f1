#!/usr/bin/env bash
# Adds a service after the pattern of one that exists: scripts/new_service.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || {
    echo "new_service: cargo is missing: install Rust, https://rustup.rs" >&2
    exit 1
}
exec cargo run --quiet --release --package new_service -- "$@"
