#!/usr/bin/env bash
# Places an order:  scripts/put_buy_order.sh [CURRENCY [AMOUNT [IDEMPOTENCE_KEY]]]
# Without arguments: 100.00 USD with a new key. Repeating the same three arguments returns the same order.
# Prints the answer. Then waits until the order is on the pages, up to 2 s, and says on standard error whether it is.
# The ports come from the environment or .env. CREATE_BUY_ORDER_URL and FETCH_BUY_ORDERS_URL, if set, replace the whole addresses. With the
# first one alone, nothing waits.
set -euo pipefail
case "${1:-}" in -h | --help)
    sed -n '2,6s/^# //p' "$0"
    exit 0
    ;;
esac
are_pages_known=1
if [ -n "${CREATE_BUY_ORDER_URL:-}" ] && [ -z "${FETCH_BUY_ORDERS_URL:-}" ]; then are_pages_known=; fi
# shellcheck source=scripts/request.sh
. "$(dirname "${BASH_SOURCE[0]}")/request.sh"

# Says whether the order is on the pages. Never fails: the order is accepted, whatever it says.
report_projection() {
    local position answer status seconds detail
    position=$(tr -d '\r' <"$headers" | awk -F ': ' 'tolower($1) == "order-position" { print $2 }')
    answer=$(send '%{http_code} %{time_total}' --get "$FETCH_BUY_ORDERS_URL/buy_orders" --data-urlencode page_size=1 \
        --header "Order-Position: $position" 2>/dev/null) || {
        echo "it was not seen on the pages: nothing answers at $FETCH_BUY_ORDERS_URL" >&2
        return 0
    }
    read -r status seconds <<<"${answer##*$'\n'}"
    if [ "$status" = 200 ]; then
        LC_ALL=C awk -v s="$seconds" 'BEGIN { printf "it is on the pages: the request that waited for it took %.0f ms\n", s * 1000 }' >&2
    else
        detail=$(sed -n 's/^{"detail":"\(.*\)"}$/\1/p' <<<"$answer")
        echo "it was not seen on the pages: HTTP $status${detail:+, $detail}" >&2
    fi
}

currency=${1:-USD}
amount=${2:-100.00}
key=${3:-$(new_uuid)}

headers=$(mktemp)
trap 'rm -f "$headers"' EXIT
request --request PUT "$CREATE_BUY_ORDER_URL/buy_order" --header 'Content-Type: application/json' --dump-header "$headers" \
    --data "{\"currency\":\"$currency\",\"amount\":\"$amount\",\"idempotence_key\":\"$key\"}"
[ -z "$are_pages_known" ] || report_projection
