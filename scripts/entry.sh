#!/usr/bin/env bash
# Gives a command to HAProxy, the service `entry` of the cluster that ./run.sh started:  scripts/entry.sh 'show table clients'
#
# HAProxy's management guide lists all commands. Natively there is no entry: clients reach the services themselves.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/running.sh
. scripts/running.sh

if [ $# -ne 1 ]; then
    sed -n '2s/^# //p' "$0" >&2
    exit 2
fi
if has_containers; then
    # The port of `stats socket` in docker/entry/haproxy.cfg, inside the container only.
    scripts/compose.sh exec -T entry nc 127.0.0.1 8775 <<<"$1"
elif runs_natively; then
    echo "entry: the cluster runs natively, without an entry"
else
    echo "entry: no cluster of this clone runs: ./run.sh starts one" >&2
    exit 1
fi
