# shellcheck shell=bash
# Sourced: the settings of the deployment, as Compose reads them.

# setting NAME: from the environment, else from .env. The last line of a name counts. Quotes around a value and a comment after it are not
# part of the value. `cluster run` reads by the same rules and refuses what Compose 1.29 and v2 read differently.
setting() {
    if [ -n "${!1+set}" ]; then
        printf '%s' "${!1}"
        return
    fi
    local line value='' pattern="^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*(.*)$"
    while IFS= read -r line || [ -n "$line" ]; do
        [[ $line == *"$1"* && $line =~ $pattern ]] && value=${BASH_REMATCH[2]}
    done <"$(dirname "${BASH_SOURCE[0]}")/../.env"
    local single="^'(([^'\\\\]|\\\\'|\\\\[^'])*)'" double='^"([^"]*)"'
    if [[ $value =~ $single ]]; then
        value=${BASH_REMATCH[1]//\\\'/\'}
    elif [[ $value =~ $double ]]; then
        value=${BASH_REMATCH[1]}
    else
        value=${value%%" #"*}
        value=${value%"${value##*[![:space:]]}"}
    fi
    printf '%s' "$value"
}

# url_part TEXT: escapes all characters with a meaning in a URL.
url_part() {
    local LC_ALL=C text=$1 index character
    for ((index = 0; index < ${#text}; index++)); do
        character=${text:index:1}
        case $character in
        [a-zA-Z0-9._~-]) printf '%s' "$character" ;;
        *) printf '%%%02X' "'$character" ;;
        esac
    done
}
