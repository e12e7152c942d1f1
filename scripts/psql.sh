#!/usr/bin/env bash
# Runs SQL, as the administrator, in a database of the cluster that ./run.sh started:  scripts/psql.sh write_model | read_model SQL
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/running.sh
. scripts/running.sh
# shellcheck source=scripts/settings.sh
. scripts/settings.sh

case "${1:-}" in
write_model | read_model) [ $# -eq 2 ] || set -- ;;
*) set -- ;;
esac
if [ $# -eq 0 ]; then
    sed -n '2s/^# //p' "$0" >&2
    exit 2
fi
model=${1^^}
name=$(setting "${model}_DB_NAME") user=$(setting "${model}_POSTGRES_USER") password=$(setting "${model}_POSTGRES_PASSWORD")
if runs_in_docker; then
    exec scripts/compose.sh exec -T -e PGPASSWORD="$password" "$1" psql --host=127.0.0.1 --username="$user" --dbname="$name" --command="$2"
fi
runs_natively || { echo "psql: no cluster of this clone runs: ./run.sh starts one" >&2 && exit 1; }
PGPASSWORD=$password exec psql --host=127.0.0.1 --port="$(setting "${model}_DB_EXT_PORT")" --username="$user" --dbname="$name" --command="$2"
