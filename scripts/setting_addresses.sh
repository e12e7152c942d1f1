# shellcheck shell=bash
# Sourced by check_settings.sh: the kinds of settings that name something in a network, as setting_kinds.sh has the others.

BEYOND_ASCII=$'\x80-\xff'

host() {
    local name value inner
    for name; do
        value_of "$name" || continue
        inner=$value
        if [[ $inner == '['*']' ]]; then inner=${inner#'['} inner=${inner%']'}; fi
        if is_ipv6 "$inner" || is_host_name "$value"; then continue; fi
        if [[ $inner == *%* ]] && is_ipv6 "${inner%%\%*}"; then
            malformed "$name" "$value" "has a zone, which a URL cannot name: use an address that needs none"
        else
            malformed "$name" "$value" "is neither a host name nor an IP address"
        fi
    done
}

is_ipv6() {
    local text=$1 head tail groups=0 most=8 part
    if [[ $text =~ ^(.*:)([0-9.]*\.[0-9.]*)$ ]]; then
        text=${BASH_REMATCH[1]}0:0
        [[ ${BASH_REMATCH[2]} =~ ^(0|[1-9][0-9]?[0-9]?)\.(0|[1-9][0-9]?[0-9]?)\.(0|[1-9][0-9]?[0-9]?)\.(0|[1-9][0-9]?[0-9]?)$ ]] || return
        for part in 1 2 3 4; do [ "${BASH_REMATCH[$part]}" -le 255 ] || return; done
    fi
    head=${text%%::*} tail=
    if [ "$head" != "$text" ]; then
        tail=${text#*::} most=7
    elif [ -z "$text" ]; then
        return 1
    fi
    for part in "$head" "$tail"; do
        [ -n "$part" ] || continue
        part=$part:
        while [ -n "$part" ]; do
            [[ ${part%%:*} =~ ^[0-9a-fA-F]{1,4}$ ]] || return
            part=${part#*:} groups=$((groups + 1))
        done
    done
    if [ $most -eq 8 ]; then [ $groups -eq 8 ]; else [ $groups -le 7 ]; fi
}

# As in a URL: a name whose last label is a number is an IPv4 address, in any of the forms that URLs know.
is_host_name() {
    local text=$1 last part number count=0
    [[ $text != *[[:cntrl:]]* && $text != *[' #%/:<>?@\^|[']* && $text != *']'* ]] || return
    text=${text%.}
    last=${text##*.}
    [[ $text != *[$BEYOND_ASCII]* && $last =~ ^([0-9]+|0[xX][0-9a-fA-F]*)$ ]] || return 0
    part=$text.
    while [ -n "$part" ]; do
        [ "${number:-0}" -le 255 ] || return
        number=${part%%.*} part=${part#*.} count=$((count + 1))
        if [[ $number =~ ^0[xX]0*([0-9a-fA-F]{0,8})$ ]]; then
            number=$((16#0${BASH_REMATCH[1]}))
        elif [[ $number =~ ^00*([0-7]{0,11})$ ]]; then
            number=$((8#0${BASH_REMATCH[1]}))
        elif [[ $number =~ ^[1-9][0-9]{0,9}$ ]]; then
            number=$((10#$number))
        else
            return 1
        fi
    done
    [ $count -le 4 ] && [ "$number" -lt $((1 << (8 * (5 - count)))) ]
}

# A path that is the same in a URL.
plain_path() {
    local value
    value_of "$1" || return 0
    local escaped=$' "#<>?`{}\\'
    [[ $value == /* && $value != *[[:cntrl:]]* && $value != *["$escaped"]* && $value != *[$BEYOND_ASCII]* && "$value/" != */./* && "$value/" != */../* ]] ||
        malformed "$1" "$value" "is not a plain path that begins with a slash"
}

# url NAME REASON
url() {
    local value scheme='^[[:space:]]*[hH][tT][tT][pP][sS]?:[/\\]*[^/\\?#:]'
    value_of "$1" || return 0
    [[ $value =~ $scheme ]] || malformed "$1" "$value" "$2"
}

# As the engine reads a name of an image: [host[:port]/]path[:tag][@digest].
image() {
    local name value part='[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*' label='[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?' pattern
    pattern="^((($label(\\.$label)*)|\\[[0-9a-fA-F:]+\\])(:[0-9]+)?/)?$part(/$part)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[A-Za-z][A-Za-z0-9]*([+._-][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$"
    for name; do
        value_of "$name" || continue
        [[ $value =~ $pattern ]] || malformed "$name" "$value" "is not the name of an image, such as name:tag or host/name:tag@sha256:..."
    done
}

# Addresses and networks, separated by blanks. HAProxy also takes names.
networks() {
    local name value word address length longest
    for name; do
        value_of "$name" || continue
        set -f
        for word in $value; do
            address=${word%%/*} length=${word#"$address"}
            length=${length#/} longest=32
            [[ $address != *:* ]] || longest=128
            if [[ $word == *[!0-9A-Za-z._:/-]* ]] || { [[ $address == *:* ]] && ! is_ipv6 "$address"; } ||
                { [[ $length != *.* && $word == */* ]] && ! is_number_up_to $longest "$length"; } ||
                { [[ $address =~ ^[0-9.]+$ ]] && ! is_host_name "$address"; }; then
                malformed "$name" "$word" "is neither an address nor a network, such as 10.0.0.0/8 or fd00::/8"
            fi
        done
        set +f
    done
}
