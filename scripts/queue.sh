#!/usr/bin/env bash
# Asks RabbitMQ's management API of the cluster that ./run.sh started, for example:  scripts/queue.sh 'queues?columns=name,messages'
set -euo pipefail
# shellcheck source=scripts/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

if [ $# -ne 1 ]; then
    sed -n '2s/^# //p' "$0" >&2
    exit 2
fi
# From a file: arguments can be read by everybody on the machine.
curl --silent --show-error --fail --max-time 30 --noproxy '*' "http://127.0.0.1:$(setting Q_EXT_ADMIN_PORT)/api/$1" \
    --config <(printf 'user = "%s:%s"\n' "$(setting Q_USER)" "$(setting Q_PWD)")
echo
