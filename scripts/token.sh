#!/usr/bin/env bash
# Prints a token of the issuer that ./run.sh --auth has started:
#   scripts/token.sh [--client NUMBER] [--scope "SCOPES"] [--lifetime SECONDS]
# Without arguments: for client 1, with the scopes orders:write and orders:read, for an hour.
set -euo pipefail
case "${1:-}" in -h | --help)
    sed -n '2,4s/^# //p' "$0"
    exit 0
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/running.sh
. scripts/running.sh

if demands_tokens natively; then
    RUST_LOG=warn ISSUER_KEY_FILE=.cluster/issuer.key exec "${CARGO_TARGET_DIR:-target}/release/issuer" token "$@"
elif demands_tokens in_docker; then
    exec scripts/compose.sh exec -T -e RUST_LOG=warn issuer /service token "$@"
else
    echo "${0##*/}: no cluster with an issuer runs here: ./run.sh --auth starts one" >&2
    exit 1
fi
