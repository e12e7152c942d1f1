#!/usr/bin/env bash
# Rebuilds the read model of the cluster that ./run.sh started: sends orders through the queue again while the services run. Rows that
# the read model already has stay as they are.
#
#   scripts/republish.sh [--since RFC3339 | --from-id ID --to-id ID] [--rate ORDERS_PER_S]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/admin.sh
. scripts/admin.sh

admin create_buy_order republish "$@"
