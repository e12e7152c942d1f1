#!/usr/bin/env bash
# Shows that no order is lost or doubled: places orders, and kills parts of the cluster meanwhile.
#
#   scripts/demo.sh [PART...]    by default queue, create_buy_order, read_model_sync and write_model, one after another
#
# Works on the cluster that ./run.sh started. Its client does what every client should: it sends an order again, with the same key, until it is
# accepted. At the end each accepted order must be on the pages, once.
set -euo pipefail
case "${1:-}" in -h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/request.sh
. scripts/request.sh

ACCEPTED_WITHIN_S=120
SHOWN_WITHIN_S=60

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "demo: $*" >&2
    exit 1
}

orders=0 repeats=0

place_order() {
    local answer order deadline=$((SECONDS + ACCEPTED_WITHIN_S))
    order="{\"currency\":\"USD\",\"amount\":\"1.00\",\"idempotence_key\":\"$(new_uuid)\"}"
    until answer=$(request --request PUT "$CREATE_BUY_ORDER_URL/buy_order" --header 'Content-Type: application/json' --data "$order" 2>"$work/error"); do
        [ $SECONDS -lt $deadline ] || fail "not accepted within $ACCEPTED_WITHIN_S s: $order: $answer $(cat "$work/error")"
        repeats=$((repeats + 1))
        sleep 0.2
    done
    ids_of "$answer" >>"$work/accepted"
    orders=$((orders + 1))
}

ids_of() { grep -oE '"id":"[0-9a-f-]+"' <<<"$1"; }

# Prints the ids of all orders on the pages.
all_pages() {
    local page=() answer last
    while true; do
        answer=$(request --get "$FETCH_BUY_ORDERS_URL/buy_orders" --data page_size=1000 ${page[@]+"${page[@]}"} 2>/dev/null) || return
        ids_of "$answer" || return 0
        last=${answer#*\"last_reference\":\"}
        page=(--data "last_reference=${last%%\"*}")
    done
}

lost_orders() {
    all_pages | sort >"$work/shown" && sort "$work/accepted" | comm -23 - "$work/shown"
}

kill_part() {
    local part=$1 killer orders_before=$orders repeats_before=$repeats began=$SECONDS
    { scripts/part.sh kill "$part" && scripts/part.sh start "$part"; } >"$work/said" 2>&1 &
    killer=$!
    while kill -0 $killer 2>/dev/null; do place_order; done
    wait $killer || fail "$(cat "$work/said")"
    printf '%-17s killed, and healthy again after %3d s: %4d orders accepted meanwhile, %d sent again\n' "$part" \
        $((SECONDS - began)) $((orders - orders_before)) $((repeats - repeats_before))
}

[ $# -gt 0 ] || set -- queue create_buy_order read_model_sync write_model
place_order
for part; do kill_part "$part"; done

deadline=$((SECONDS + SHOWN_WITHIN_S))
until lost=$(lost_orders) && [ -z "$lost" ]; do
    [ $SECONDS -lt $deadline ] || fail "these orders were accepted, and are not on the pages after $SHOWN_WITHIN_S s: $lost"
    sleep 0.5
done
doubled=$(uniq -d "$work/shown")
[ -z "$doubled" ] || fail "these orders are on the pages twice: $doubled"
echo "$orders orders were accepted, and all $orders are on the pages, each of them once"
