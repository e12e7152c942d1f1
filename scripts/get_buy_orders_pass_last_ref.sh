#!/usr/bin/env bash
# Shows the page after an order:  scripts/get_buy_orders_pass_last_ref.sh [LAST_REFERENCE [PAGE_SIZE]]
# Without arguments: reads the first page and continues from its last_reference.
# The port comes from the environment or .env. FETCH_BUY_ORDERS_URL, if set, replaces the whole address.
set -euo pipefail
case "${1:-}" in -h | --help)
    sed -n '2,4s/^# //p' "$0"
    exit 0
    ;;
esac
# shellcheck source=scripts/request.sh
. "$(dirname "${BASH_SOURCE[0]}")/request.sh"

last_reference=${1:-}
if [ -z "$last_reference" ]; then
    first_page=$(request --get "$FETCH_BUY_ORDERS_URL/buy_orders") || {
        printf '%s\n' "$first_page"
        exit 1
    }
    last_reference=$(printf '%s' "$first_page" | sed -n 's/.*"last_reference":"\([^"]*\)".*/\1/p')
    if [ -z "$last_reference" ]; then
        echo "${0##*/}: there are no orders yet: scripts/put_buy_order.sh places one" >&2
        exit 1
    fi
    echo "the page after $last_reference:" >&2
fi

request --get "$FETCH_BUY_ORDERS_URL/buy_orders" --data-urlencode "last_reference=$last_reference" \
    ${2:+--data-urlencode "page_size=$2"}
