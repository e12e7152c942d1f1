#!/usr/bin/env bash
# Makes the owner of this server's database. The image of PostgreSQL runs it when it creates the data. For data of an earlier release, and to
# change the owner's password, run it in the container: docs/operations.md.
set -euo pipefail

export DB_OWNER_PASSWORD=${DB_OWNER_PASSWORD:-$(cat "${DB_OWNER_PASSWORD_FILE:?}")}
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
\getenv owner DB_OWNER
\getenv password DB_OWNER_PASSWORD
SELECT set_config('pydist.owner', :'owner', false), set_config('pydist.owner_password', :'password', false) \g /dev/null
\i /usr/local/share/pydist/owner.sql
SQL
