#!/usr/bin/env bash
# Shows the newest orders:  scripts/get_buy_orders.sh [PAGE_SIZE]
# The port comes from the environment or .env. FETCH_BUY_ORDERS_URL, if set, replaces the whole address.
set -euo pipefail
case "${1:-}" in -h | --help)
    sed -n '2,3s/^# //p' "$0"
    exit 0
    ;;
esac
# shellcheck source=scripts/request.sh
. "$(dirname "${BASH_SOURCE[0]}")/request.sh"

request --get "$FETCH_BUY_ORDERS_URL/buy_orders" ${1:+--data-urlencode "page_size=$1"}
