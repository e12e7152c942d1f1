#!/usr/bin/env bash
# Takes an order out of the book of the cluster that ./run.sh started: its BTC are free again, and no page shows it. It cannot be undone.
#
#   scripts/void.sh --id ORDER_ID --reason TEXT
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/admin.sh
. scripts/admin.sh
# shellcheck source=scripts/settings.sh
. scripts/settings.sh

# The service itself may not void orders. The password of the role that may can be in a file.
WRITE_MODEL_DB_USER=$(setting BUY_ORDER_VOIDER_DB_USER) WRITE_MODEL_DB_PWD=$(setting BUY_ORDER_VOIDER_DB_PWD)
if [ -n "${BUY_ORDER_VOIDER_DB_PWD_FILE:-}" ]; then WRITE_MODEL_DB_PWD=$(<"$BUY_ORDER_VOIDER_DB_PWD_FILE"); fi
WRITE_MODEL_DB_PWD_FILE=
export WRITE_MODEL_DB_USER WRITE_MODEL_DB_PWD WRITE_MODEL_DB_PWD_FILE
replaced=(WRITE_MODEL_DB_USER WRITE_MODEL_DB_PWD WRITE_MODEL_DB_PWD_FILE)
admin create_buy_order void "$@"
