#!/bin/sh
# Prints the servers that pgAdmin shows at its first start. POSIX sh: the image has no bash. pgAdmin asks for the passwords, which are in .env.
set -eu

server() { # TITLE HOST PORT DATABASE USER
    printf '{"Name": "%s", "Group": "pydist", "Host": "%s", "Port": %s, "MaintenanceDB": "%s", "Username": "%s", "SSLMode": "prefer"}' "$@"
}

printf '{"Servers": {"1": %s, "2": %s}}\n' \
    "$(server "write model" "$WRITE_MODEL_HOST" "$WRITE_MODEL_PORT" "$WRITE_MODEL_NAME" "$WRITE_MODEL_USER")" \
    "$(server "read model" "$READ_MODEL_HOST" "$READ_MODEL_PORT" "$READ_MODEL_NAME" "$READ_MODEL_USER")"
