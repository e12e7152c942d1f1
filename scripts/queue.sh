#!/usr/bin/env bash
# Asks RabbitMQ's management API of the cluster that ./run.sh started, for example:  scripts/queue.sh 'queues?columns=name,messages'
#
#   scripts/queue.sh RESOURCE [METHOD [JSON]]      in RESOURCE, {vhost} and {user} stand for Q_VHOST and Q_USER
set -euo pipefail
# shellcheck source=scripts/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

if [ $# -lt 1 ] || [ $# -gt 3 ]; then
    sed -n '2,4s/^# *//p' "$0" >&2
    exit 2
fi
resource=${1//'{vhost}'/$(url_part "$(setting Q_VHOST)")}
resource=${resource//'{user}'/$(url_part "$(setting Q_USER)")}
# Escaped for quotes in curl's configuration file.
login=$(setting Q_USER):$(setting Q_PWD)
login=${login//\\/\\\\}
login=${login//\"/\\\"}
# The password comes from a file: every user of the machine can read arguments. --globoff: braces and brackets are literal in a resource.
curl --silent --show-error --fail --max-time 30 --noproxy '*' --globoff "http://127.0.0.1:$(setting Q_EXT_ADMIN_PORT)/api/$resource" \
    --request "${2:-GET}" --header 'Content-Type: application/json' ${3:+--data "$3"} --config <(printf 'user = "%s"\n' "$login")
echo
