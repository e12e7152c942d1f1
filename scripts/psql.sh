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
'') set -- ;;
*)
    echo "psql: unknown database '$1': write_model or read_model" >&2
    exit 2
    ;;
esac
if [ $# -eq 0 ]; then
    sed -n '2s/^# //p' "$0" >&2
    exit 2
fi
# Every user of the machine can read arguments, so no password is among them.
if has_containers; then
    # shellcheck disable=SC2016 # the variables are the container's
    exec scripts/compose.sh exec -T "$1" sh -c \
        'PGPASSWORD=${POSTGRES_PASSWORD:-$(cat "$POSTGRES_PASSWORD_FILE")} exec psql --host=127.0.0.1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --command="$1"' sh "$2"
fi
runs_natively || { echo "psql: no cluster of this clone runs: ./run.sh starts one" >&2 && exit 1; }
case $1 in write_model) model=WRITE_MODEL ;; *) model=READ_MODEL ;; esac
PGPASSWORD=$(setting "${model}_POSTGRES_PASSWORD")
export PGPASSWORD
exec psql --host=127.0.0.1 --port="$(setting "${model}_DB_EXT_PORT")" --username="$(setting "${model}_POSTGRES_USER")" \
    --dbname="$(setting "${model}_POSTGRES_DB")" --command="$2"
