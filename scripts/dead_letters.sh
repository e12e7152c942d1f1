#!/usr/bin/env bash
# The dead letters of the cluster that ./run.sh started: messages that could never be applied to the read model.
#
#   scripts/dead_letters.sh list [--json]
#   scripts/dead_letters.sh show --id ID...
#   scripts/dead_letters.sh redrive --id ID... | --all
#   scripts/dead_letters.sh drop --id ID... | --all [--yes]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/admin.sh
. scripts/admin.sh
# shellcheck source=scripts/settings.sh
. scripts/settings.sh

# The service itself may neither read its dead letters nor publish orders. The password of the administrator may be in a file here.
Q_USER=$(setting Q_USER) Q_PWD=$(setting Q_PWD)
if [ -n "${Q_PWD_FILE:-}" ]; then Q_PWD=$(<"$Q_PWD_FILE"); fi
Q_PWD_FILE=
export Q_USER Q_PWD Q_PWD_FILE
replaced=(Q_USER Q_PWD Q_PWD_FILE)
case " $* " in *" --yes "*) ;; *) [ "${1:-}" != drop ] || asks=1 ;; esac
# shellcheck disable=SC2034 # admin reads it
admin read_model_sync dead-letters "$@"
