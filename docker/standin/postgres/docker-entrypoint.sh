#!/bin/bash
# First start: makes the data directory, the superuser and the database that the environment names. Then becomes PostgreSQL.
set -euo pipefail

if [ "$1" != postgres ]; then exec "$@"; fi

if [ "$(id -u)" -eq 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); fi
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo "postgres: POSTGRES_PASSWORD is not set, and a new database needs one" >&2
        exit 1
    fi
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    initdb --pgdata="$PGDATA" --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --encoding=UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    if [ "$database" != postgres ]; then
        printf 'CREATE DATABASE "%s"\n' "${database//\"/\"\"}" | postgres --single -j -D "$PGDATA" postgres >/dev/null
    fi
    # As in the official image: a server without TCP runs the scripts.
    pg_ctl --pgdata="$PGDATA" --options="-c listen_addresses=''" --wait --silent start
    for script in /docker-entrypoint-initdb.d/*.sh; do
        [ ! -e "$script" ] || POSTGRES_USER=$user POSTGRES_DB=$database bash "$script"
    done
    pg_ctl --pgdata="$PGDATA" --mode=fast --wait --silent stop
fi
unset POSTGRES_PASSWORD
exec "$@"
