#!/usr/bin/env bash
# Places an order:  scripts/put_buy_order.sh [CURRENCY [AMOUNT [IDEMPOTENCE_KEY]]]
# Without arguments: 100.00 USD with a new key. Repeating the same three arguments returns the same order.
# The port comes from the environment or .env. CREATE_BUY_ORDER_URL, if set, replaces the whole address.
set -euo pipefail
case "${1:-}" in -h | --help)
    sed -n '2,4s/^# //p' "$0"
    exit 0
    ;;
esac
# shellcheck source=scripts/request.sh
. "$(dirname "${BASH_SOURCE[0]}")/request.sh"

currency=${1:-USD}
amount=${2:-100.00}
key=${3:-$(cat /proc/sys/kernel/random/uuid)}

request --request PUT "$CREATE_BUY_ORDER_URL/buy_order" --header 'Content-Type: application/json' \
    --data "{\"currency\":\"$currency\",\"amount\":\"$amount\",\"idempotence_key\":\"$key\"}"
