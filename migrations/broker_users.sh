#!/usr/bin/env bash
# Prints RabbitMQ's definitions of the virtual host and of who may do what there, as JSON. RabbitMQ reads them at each start, so passwords
# follow the environment: Q_VHOST, Q_EXCHANGE, and Q_USER and Q_PWD (or Q_PWD_FILE) of the administrator. A service whose ..._Q_USER is empty
# gets no user.
#
# `migration` declares what the permissions speak of: crates/common/src/broker/topology.rs.
set -euo pipefail

exchange=${Q_EXCHANGE:-pydist} queue=buy_order
dead_letter_exchange=$exchange.dead_letter dead_letter_queue=$queue.dead_letter

# json TEXT: a string of JSON, whatever characters are in the text.
json() {
    local text=$1 code character
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    for code in {1..31}; do
        printf -v code '%04x' "$code"
        printf -v character '%b' "\\x${code:2}"
        text=${text//"$character"/\\u$code}
    done
    printf '"%s"' "$text"
}

# only NAME...: a regular expression for these names and no others.
only() {
    local name names=()
    # shellcheck disable=SC2001 # before 5.2, bash has no & for what was found
    for name in "$@"; do names+=("$(sed 's/[][\\.^$*+?(){}|]/\\&/g' <<<"$name")"); done
    local IFS='|'
    printf '^(%s)$' "${names[*]}"
}

users=() permissions=()

# user PREFIX TAGS CONFIGURE WRITE READ: a user, with the name and password of PREFIX_USER and PREFIX_PWD (or PREFIX_PWD_FILE).
user() {
    local name=$1_USER password=$1_PWD file=$1_PWD_FILE
    [ -n "${!name:-}" ] || return 0
    # A service may go on logging in as the administrator, which then stays one.
    [ "$1" = Q ] || [ "${!name}" != "${Q_USER:-}" ] || return 0
    name=$(json "${!name}")
    password=${!password:-$(cat "${!file:?}")}
    users+=("{\"name\": $name, \"password\": $(json "$password"), \"tags\": \"$2\"}")
    permissions+=("{\"user\": $name, \"vhost\": $vhost, \"configure\": $(json "$3"), \"write\": $(json "$4"), \"read\": $(json "$5")}")
}

vhost=$(json "${Q_VHOST:-/}")
nothing='^$'
user Q administrator '.*' '.*' '.*'
# RabbitMQ asks for more than `configure` to declare a queue with a dead-letter exchange (write to that, read the queue), and to bind one
# (write to the queue, read the exchange).
user MIGRATION_Q '' "$(only "$exchange" "$dead_letter_exchange" "$queue" "$dead_letter_queue")" \
    "$(only "$dead_letter_exchange" "$queue" "$dead_letter_queue")" "$(only "$exchange" "$dead_letter_exchange" "$queue")"
user CREATE_BUY_ORDER_Q '' "$nothing" "$(only "$exchange")" "$nothing"
user READ_MODEL_SYNC_Q '' "$nothing" "$(only "$dead_letter_exchange")" "$(only "$queue")"

IFS=,
printf '{"vhosts": [{"name": %s}], "users": [%s], "permissions": [%s]}\n' "$vhost" "${users[*]}" "${permissions[*]}"
