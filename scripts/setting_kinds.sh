# shellcheck shell=bash
# Sourced by check_settings.sh: what values each kind of setting may have. It accepts whatever the services accept, and says what is wrong in
# their words: crates/common/src/env.rs and config.rs of each service. Where only the service itself can tell (names with letters beyond ASCII,
# the content of certificates), a value passes. An empty value is a missing one.

# Texts are bytes here. The case of letters and the order of characters depend on no language.
LC_ALL=C
faults=()
fault() { faults+=("$1"); }

# value_of NAME: puts it into `value`; fails if there is none.
value_of() {
    local in_file=dotenv_$1
    if [ -n "${!1+set}" ]; then value=${!1}; else value=${!in_file:-}; fi
    [ -n "$value" ]
}

# is NAME VALUE
is() {
    local value
    value_of "$1" && [ "$value" = "$2" ]
}

# is_set NAME: also if it is empty.
is_set() {
    local in_file=dotenv_$1
    [ -n "${!1+set}${!in_file+set}" ]
}

# malformed NAME VALUE REASON
malformed() {
    local text=$2 code character
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\t'/\\t}
    text=${text//$'\n'/\\n}
    text=${text//$'\r'/\\r}
    for code in 1 2 3 4 5 6 7 8 b c e f 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f 7f; do
        [[ $text == *[[:cntrl:]]* ]] || break
        printf -v character '%b' "\\x$code"
        text=${text//"$character"/\\u\{$code\}}
    done
    fault "$1 is malformed: \"$text\" $3"
}

required() {
    local name value
    for name; do value_of "$name" || fault "$name is missing"; done
}

# one_of NAME VALUE...
one_of() {
    local name=$1 value known all
    value_of "$name" || return 0
    shift
    for known; do [ "$value" != "$known" ] || return 0; done
    all=$(IFS=, && echo "$*")
    malformed "$name" "$value" "is none of ${all//,/, }"
}

# is_number_up_to MAX TEXT: whether it consists of digits, and is not larger. MAX has at most 18 digits.
is_number_up_to() {
    local digits=$2
    [[ $digits =~ ^[0-9]+$ ]] || return
    digits=${digits#"${digits%%[!0]*}"}
    [ ${#digits} -le ${#1} ] && [ "${digits:-0}" -le "$1" ]
}

port() {
    local name value
    for name; do
        value_of "$name" || continue
        is_number_up_to 65535 "${value#+}" || malformed "$name" "$value" "is not a port, which is a number from 0 to 65535"
    done
}

# published_ports NAME...: ports of this machine, each another one. `may_listen NAME PORT` reports what the system forbids.
published_ports() {
    local name value other port taken=' '
    for name; do
        if ! value_of "$name"; then
            fault "$name is missing"
        elif ! is_number_up_to 65535 "$value" || [ $((10#$value)) -eq 0 ]; then
            malformed "$name" "$value" "is not a port, which is a number from 1 to 65535"
        else
            port=$((10#$value))
            if [[ $taken == *" $port="* ]]; then
                other=${taken#*" $port="}
                fault "$name and ${other%% *} are both $port: set one to another port"
            else
                may_listen "$name" "$port"
            fi
            taken+="$port=$name "
        fi
    done
}

# As Rust reads a float, without infinities: a second number is its power of ten.
NUMBER='^\+?([0-9]*)(\.([0-9]*))?([eE]([+-]?)([0-9]+))?$'

seconds() {
    local name value
    for name; do
        value_of "$name" || continue
        is_duration "$value" || malformed "$name" "$value" "is not a number of seconds above 0 and up to 86400"
    done
}

# is_duration TEXT: it is 0.DIGITS times ten to the power of `point`. Nanoseconds are rounded.
is_duration() {
    [[ $1 =~ $NUMBER ]] || return
    local digits=${BASH_REMATCH[1]}${BASH_REMATCH[3]} point=${#BASH_REMATCH[1]} sign=${BASH_REMATCH[5]} power=${BASH_REMATCH[6]} zeros
    power=${power#"${power%%[!0]*}"}
    zeros=${digits%%[!0]*}
    digits=${digits#"$zeros"}
    [ -n "$digits" ] && [ ${#power} -le 6 ] || return
    point=$((point - ${#zeros} + ${sign}${power:-0}))
    if [ $point -eq 5 ]; then
        [[ x$digits < x864000000000005 ]]
    elif [ $point -eq -9 ]; then
        [[ x$digits > x5 ]]
    else
        [ $point -lt 5 ] && [ $point -gt -9 ]
    fi
}

# in_units TEXT: a plain decimal of at most 8 decimals and 6 digits before them, above 0, in units of 10^-8.
in_units() {
    [[ $1 == [0-9]* && $1 =~ ^0*([0-9]*)(\.([0-9]+))?$ ]] || return
    local whole=${BASH_REMATCH[1]} decimals=${BASH_REMATCH[3]}
    decimals=${decimals%"${decimals##*[!0]}"}
    [ ${#whole} -le 6 ] && [ ${#decimals} -le 8 ] || return
    while [ ${#decimals} -lt 8 ]; do decimals+=0; done
    units=$((10#$whole$decimals))
    [ "$units" -gt 0 ]
}

ratio() {
    local value units
    value_of "$1" || return 0
    if ! in_units "$value" || [ "$units" -ge 100000000 ]; then
        malformed "$1" "$value" "is not a decimal above 0 and below 1 with at most 8 decimals (0.5 is 50 %; empty for no bound)"
    fi
}

# order_limits MIN MAX...: amounts of BTC, each MAX at least MIN.
order_limits() {
    local name value units min='' min_text
    for name; do
        value_of "$name" || continue
        if ! in_units "$value" || [ "$units" -gt 10000000000 ]; then
            malformed "$name" "$value" "is not an amount of BTC above 0 and up to the cap of 100, with at most 8 decimals (empty for no bound)"
        elif [ "$name" = "$1" ]; then
            min=$units
        elif [ -n "$min" ] && [ "$min" -gt "$units" ]; then
            printf -v min_text '%d.%08d' $((min / 100000000)) $((min % 100000000))
            printf -v value '%d.%08d' $((units / 100000000)) $((units % 100000000))
            fault "$1, $min_text, is above $name, $value"
        fi
    done
}

# Counters of HAProxy.
counter() {
    local name value
    for name; do
        value_of "$name" || continue
        if ! is_number_up_to 2147483647 "$value" || [ $((10#$value)) -eq 0 ]; then
            malformed "$name" "$value" "is not a whole number from 1 to 2147483647 (empty for no limit)"
        fi
    done
}

# A name for a server that logs in by SCRAM, and its password.
login() {
    local prefix value part
    for prefix; do
        for part in USER PWD; do
            value_of "${prefix}_$part" || continue
            if [ $part = USER ] && [[ $value == *,* ]]; then
                fault "${prefix}_USER holds a comma, which separates the parts of a login: choose another name"
            fi
            # The bytes are those of emojis.
            if [[ $value == *[[:cntrl:]]* || $value == *$'\xf0\x9f'* ]]; then
                fault "${prefix}_$part holds a character that a login may not hold (RFC 4013), for example a control character or an emoji: choose another"
            fi
        done
    done
}

no_control_character() {
    local name value
    for name; do
        value_of "$name" || continue
        [[ $value != *[[:cntrl:]]* ]] || fault "$name contains a control character, for example a line break: choose another value"
    done
}
