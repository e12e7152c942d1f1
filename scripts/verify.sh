#!/usr/bin/env bash
# Compares the read model of the cluster that ./run.sh started with its write model, names the ranges of orders that differ, and exits with 1
# if there are any.
#
#   scripts/verify.sh [ORDERS_IN_A_RANGE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/admin.sh
. scripts/admin.sh

admin create_buy_order checksums --range-size "${1:-10000}" </dev/null | admin read_model_sync verify
