# shellcheck shell=bash
# Sourced by the curl scripts. `request` sends one request, prints the body on stdout and the status on stderr, and fails unless the status
# is 2xx.

# shellcheck source=scripts/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

# Prints the header with a token, if the cluster of this clone demands one. TOKEN replaces it, for another cluster.
authorization() (
    cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
    # shellcheck source=scripts/running.sh
    . scripts/running.sh
    if [ -z "${TOKEN:-}" ] && { demands_tokens natively || demands_tokens in_docker; }; then TOKEN=$(scripts/token.sh); fi
    [ -z "${TOKEN:-}" ] || echo "Authorization: Bearer $TOKEN"
)

# send FORMAT CURL_ARGUMENTS...: sends one request. Prints the body, and in a line of its own what FORMAT says, as for curl's --write-out.
send() {
    local format=$1
    shift
    # The token reaches curl through a pipe: every user of the machine can read arguments.
    curl --silent --show-error --max-time 30 --noproxy '*' --write-out "\n$format" --header @<(authorization) "$@"
}

# request CURL_ARGUMENTS...
request() {
    local answer
    # --fail-with-body would be shorter, but needs curl 7.76.
    answer=$(send '%{http_code}' "$@") || {
        echo "${0##*/}: nothing answers: does the cluster run? ./run.sh starts it" >&2
        return 1
    }
    printf '%s\n' "${answer%$'\n'*}"
    local status=${answer##*$'\n'}
    echo "HTTP $status" >&2
    [[ $status == 2* ]]
}

CREATE_BUY_ORDER_URL=${CREATE_BUY_ORDER_URL:-http://127.0.0.1:$(setting CREATE_BUY_ORDER_EXT_PORT)}
FETCH_BUY_ORDERS_URL=${FETCH_BUY_ORDERS_URL:-http://127.0.0.1:$(setting FETCH_BUY_ORDERS_EXT_PORT)}
