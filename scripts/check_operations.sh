#!/usr/bin/env bash
# Runs the commands of docs/operations.md against the cluster that ./run.sh started: those in blocks marked `sh`, which change nothing
# important, and then those marked `bash`, in their order, which break something. Every order that these placed must be on the page afterwards.
# Those marked `console` are for emergencies and are only parsed. A command of a missing script is reported as pending.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

MANUAL=docs/operations.md
LIMIT=180 # seconds for one command
SHOWN_WITHIN_S=60

# commands MARK: prints the lines of the blocks with this mark.
commands() { awk -v mark="$1" '/^ *```/ { inside = ($0 ~ "```" mark "$") && !inside; next } inside && NF' "$MANUAL"; }

ran=0 pending=0 failed=0
# What the last command has printed.
output=''
# run LINE
run() {
    if output=$(timeout "$LIMIT" bash -c "$1" </dev/null 2>&1); then
        ran=$((ran + 1))
    else
        printf 'check_operations: FAILED: %s\n%s\n' "$1" "$output" >&2
        failed=$((failed + 1))
    fi
}

# shows ID: waits until the order is on the page.
shows() {
    local page deadline=$((SECONDS + SHOWN_WITHIN_S))
    until page=$(scripts/get_buy_orders.sh 100 2>&1) && [[ $page == *"$1"* ]]; do
        [ $SECONDS -lt $deadline ] || { echo "check_operations: FAILED: order $1 is not on the page: $page" >&2 && return 1; }
        sleep 0.5
    done
}
# Read in full first: a command that reads its input must not eat the rest of the list.
mapfile -t lines < <(commands sh | sort -u)
for line in "${lines[@]}"; do
    script=${line%% *}
    if [[ $script == scripts/* && ! -x $script ]]; then
        echo "check_operations: pending, as $script is not there: $line"
        pending=$((pending + 1))
    else
        run "$line"
    fi
done
mapfile -t lines < <(commands bash)
orders=()
for line in "${lines[@]}"; do
    run "$line"
    if [[ $output =~ \"buy_order\":\{\"id\":\"([^\"]+)\" ]]; then orders+=("${BASH_REMATCH[1]}"); fi
done
for order in "${orders[@]}"; do shows "$order" || failed=$((failed + 1)); done
mapfile -t lines < <(commands console)
for line in "${lines[@]}"; do
    script=${line%% *}
    if ! bash -n <<<"$line"; then
        failed=$((failed + 1))
    elif [[ $script == scripts/* && ! -x $script ]]; then
        echo "check_operations: pending, as $script is not there: $line"
        pending=$((pending + 1))
    fi
done
echo "check_operations: $ran commands ran, $pending pending, $failed failed, ${#orders[@]} orders were placed meanwhile"
[ "$failed" -eq 0 ] && [ "$ran" -gt 10 ] && [ ${#orders[@]} -gt 1 ]
