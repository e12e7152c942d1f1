#!/usr/bin/env bash
# Asks a service of the cluster that ./run.sh started. It asks from inside: a container's network cannot be reached from outside.
#
#   scripts/ask.sh SERVICE healthcheck | readyz | metrics [PATTERN]
#
# PATTERN, an extended regular expression, selects lines of the answer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/running.sh
. scripts/running.sh

if [ $# -lt 2 ]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '/^set /d' >&2
    exit 2
fi
service=$1 question=$2 pattern=${3:-}

ask() {
    if runs_in_docker; then
        scripts/compose.sh exec -T "$service" /service "$question"
        return
    fi
    runs_natively || { echo "ask: no cluster of this clone runs: ./run.sh starts one" >&2 && return 1; }
    local process
    process=$(native_process "$service") || return
    run_again "$process" "$question"
}

# The answer is read to its end before it is searched.
answer=$(ask)
if [ -n "$pattern" ]; then grep -E -- "$pattern" <<<"$answer"; else [ -z "$answer" ] || printf '%s\n' "$answer"; fi
