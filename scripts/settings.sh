# shellcheck shell=bash
# Sourced: the settings of the deployment, as Compose reads them.

# `blanks` is a list of characters for patterns; problems are sentences with $ in them.
# shellcheck disable=SC2295,SC2016

# What ends a word in .env, besides the line break.
blanks=$' \t\f\r'

# read_value TEXT: puts the value that follows `=` on a line of .env into `value`. Quotes around it and a comment after it are not part of it.
# `problem` says why Compose 1.29 and v2 do not read it alike; it is empty if they do. `cluster run` follows the same rules.
read_value() {
    local rest=$1 chunk
    rest=${rest#"${rest%%[!$blanks]*}"}
    value='' problem=''
    case $rest in
    \'*) read_single_quoted "${rest#\'}" ;;
    \"*)
        rest=${rest#\"}
        value=${rest%%\"*}
        if [ "$value" = "$rest" ]; then
            problem='the closing `"` is missing'
        elif [[ $value == *[\$\\]* ]]; then
            problem='`$` and `\` are special within double quotes: use single quotes'
        else
            refuse_text_after_quote "${rest#*\"}"
        fi
        ;;
    *)
        value=${rest%%" #"*}
        value=${value%"${value##*[!$blanks]}"}
        if [[ $value == *'$'* || $value == *$'\t#'* ]] || has_unusual_blank_at_an_end "$value"; then
            problem='`$`, a tab before `#`, and unusual blanks at the ends are special without quotes: put the value into single quotes'
        fi
        ;;
    esac
}

read_single_quoted() {
    local rest=$1 chunk
    local elsewhere='Set the variable in the environment instead, where no character is special'
    while true; do
        chunk=${rest%%[\'\\]*}
        value+=$chunk
        rest=${rest#"$chunk"}
        case $rest in
        \'*) break ;;
        \\\'*) value+=\' rest=${rest#??} ;;
        \\\\*) problem='Compose 1.29 and v2 differ on `\\` within quotes. '$elsewhere && return ;;
        \\*) value+=\\ rest=${rest#?} ;;
        *) problem="the closing \`'\` is missing: within single quotes write \`\\'\` for \`'\`" && return ;;
        esac
    done
    if [[ $value == *'${'* ]]; then
        problem='Compose 1.29 replaces `${` even within single quotes. '$elsewhere
    else
        refuse_text_after_quote "${rest#\'}"
    fi
}

refuse_text_after_quote() {
    local rest=${1#"${1%%[!$blanks]*}"}
    case $rest in
    '' | '#'*) ;;
    *) problem="there is text after the closing quote: within single quotes write \`\\'\` for \`'\`" ;;
    esac
}

# In UTF-8: no-break space, ideographic space and so on, and the vertical tab.
has_unusual_blank_at_an_end() {
    local LC_ALL=C blank
    for blank in $'\v' $'\xc2\x85' $'\xc2\xa0' $'\xe1\x9a\x80' $'\xe2\x80'[$'\x80'-$'\x8a'$'\xa8\xa9\xaf'] $'\xe2\x81\x9f' $'\xe3\x80\x80'; do
        # shellcheck disable=SC2053 # a pattern
        if [[ $1 == $blank* || $1 == *$blank ]]; then return; fi
    done
    return 1
}

# setting NAME: from the environment, else from .env, where the last line of a name counts.
setting() {
    if [ -n "${!1+set}" ]; then
        printf '%s' "${!1}"
        return
    fi
    # shellcheck disable=SC2034 # read_value sets it
    local line text='' value problem pattern="^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=(.*)$"
    while IFS= read -r line || [ -n "$line" ]; do
        [[ $line == *"$1"* && $line =~ $pattern ]] && text=${BASH_REMATCH[2]}
    done <"$(dirname "${BASH_SOURCE[0]}")/../.env"
    read_value "$text"
    printf '%s' "$value"
}

# new_uuid: prints a random one (RFC 9562, version 4).
new_uuid() {
    local hex
    hex=$(od -An -v -N16 -tx1 /dev/urandom)
    hex=${hex//[!0-9a-f]/}
    printf '%s-%s-4%s-%x%s-%s\n' "${hex:0:8}" "${hex:8:4}" "${hex:13:3}" $((8 + 0x${hex:16:1} % 4)) "${hex:17:3}" "${hex:20:12}"
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
