#!/usr/bin/env bash
# Runs the commands of docs/operations.md against the cluster that ./run.sh started: those in blocks marked `sh`, which change nothing
# important. Those marked `console` are for emergencies and are only parsed. A command of a missing script is reported as pending.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

MANUAL=docs/operations.md
LIMIT=120 # seconds for one command

# commands MARK: prints the lines of the blocks with this mark.
commands() { awk -v mark="$1" '/^ *```/ { inside = ($0 ~ "```" mark "$") && !inside; next } inside && NF' "$MANUAL"; }

ran=0 pending=0 failed=0
# Read in full first: a command that reads its input must not eat the rest of the list.
mapfile -t lines < <(commands sh | sort -u)
for line in "${lines[@]}"; do
    script=${line%% *}
    if [[ $script == scripts/* && ! -x $script ]]; then
        echo "check_operations: pending, as $script is not there: $line"
        pending=$((pending + 1))
    elif output=$(timeout "$LIMIT" bash -c "$line" </dev/null 2>&1); then
        ran=$((ran + 1))
    else
        printf 'check_operations: FAILED: %s\n%s\n' "$line" "$output" >&2
        failed=$((failed + 1))
    fi
done
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
echo "check_operations: $ran commands ran, $pending pending, $failed failed"
[ "$failed" -eq 0 ] && [ "$ran" -gt 10 ]
