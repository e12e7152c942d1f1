#!/usr/bin/env bash
# Rebuilds the read model of the cluster that ./run.sh started: sends all orders through the queue once more, while the services run.
# What the read model has already, it keeps.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/running.sh
. scripts/running.sh

if runs_in_docker; then exec scripts/compose.sh run --rm create_buy_order --republish; fi
runs_natively || { echo "republish: no cluster of this clone runs: ./run.sh starts one" >&2 && exit 1; }
# The kernel keeps the first 15 characters of a name.
service=$(pgrep --parent "$(cat .cluster/lock)" --exact create_buy_orde)
# In the environment of the one that runs, and of the very binary.
# shellcheck disable=SC2016
exec xargs --null --arg-file="/proc/$service/environ" sh -c 'binary=$1 && shift && exec env -i "$@" "$binary" --republish' sh "/proc/$service/exe"
