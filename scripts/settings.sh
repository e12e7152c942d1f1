# shellcheck shell=bash
# Sourced: the settings of the deployment, as Compose reads them.

# setting NAME: from the environment, else from .env, where the last line of a name counts, quotes around a value are no part of it,
# and neither is a comment after it.
setting() {
    if [ -n "${!1+set}" ]; then
        printf '%s' "${!1}"
        return
    fi
    local value
    value=$(sed -nE "/^ *(export +)?$1 *=/ {
        s/^[^=]*= *//
        /^[\"']/! s/( +#.*| *)\$//
        s/^\"([^\"]*)\".*|^'([^']*)'.*/\1\2/
        p
    }" "$(dirname "${BASH_SOURCE[0]}")/../.env" | tail -n 1)
    printf '%s' "$value"
}
