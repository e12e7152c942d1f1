#!/usr/bin/env bash
# Shows the page after an order:  scripts/get_buy_orders_pass_last_ref.sh [LAST_REFERENCE [PAGE_SIZE]]
# Without arguments: reads a first page of one order and continues from its last_reference. So two orders are enough for a second page.
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
    first_page=$(request --get "$FETCH_BUY_ORDERS_URL/buy_orders" --data-urlencode page_size=1) || {
        printf '%s\n' "$first_page"
        exit 1
    }
    last_reference=$(printf '%s' "$first_page" | sed -n 's/.*"last_reference":"\([^"]*\)".*/\1/p')
    if [ -z "$last_reference" ]; then
        echo "${0##*/}: there are no orders yet: scripts/put_buy_order.sh places one" >&2
        exit 1
    fi
    echo "the newest order is $last_reference; the page after it:" >&2
fi

page=$(request --get "$FETCH_BUY_ORDERS_URL/buy_orders" --data-urlencode "last_reference=$last_reference" \
    ${2:+--data-urlencode "page_size=$2"}) || {
    printf '%s\n' "$page"
    exit 1
}
printf '%s\n' "$page"
if [[ $page == '{"rows":[],'* ]]; then echo "no order is older than that one" >&2; fi
