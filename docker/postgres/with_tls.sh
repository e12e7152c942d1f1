#!/usr/bin/env bash
# Starts PostgreSQL with TLS, in its image: over the network nobody logs in without. The arguments are the server's.
set -euo pipefail

# PostgreSQL wants a key that only its own user can read. Of a secret Compose cannot choose the owner.
install -m 600 /run/secrets/key /var/run/postgresql/tls.key
exec docker-entrypoint.sh postgres "$@" -c ssl=on -c ssl_cert_file=/run/secrets/certificate -c ssl_key_file=/var/run/postgresql/tls.key \
    -c hba_file=/usr/local/share/pydist/pg_hba.conf
