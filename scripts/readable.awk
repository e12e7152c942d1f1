# Makes readable lines of what the parts of the cluster write: JSON events of the services, and lines of the servers as they are.
# POSIX awk. It counts bytes, so run it with LC_ALL=C: scripts/readable.sh does.
#
#   width    of a line in columns; 0: not cut
#   colour   1: warnings yellow, errors red, what is routine dim
#   command  1: of an admin command. Of its events only warnings and errors are shown; all else is printed as it is
#
# An input that ends with the byte 1 is a tick: a second has passed (with_ticks in scripts/readable.sh). With ticks, nothing floods the
# terminal: of each 5 s, routine lines beyond MAX_ROUTINE are only counted, and so are repeats of other events. A tick may interrupt a line.
BEGIN {
    MAX_ROUTINE = 20
    WINDOW_S = 5
    split("create_buy_order_request_received buy_order_created buy_order_request_idempotence_cache_hit" \
        " buy_order_read_model_synced buy_orders_page_requested btc_price_quoted line", routine_events, " ")
    split("orders received,created,repeated,projected,pages read,prices quoted,other lines", routine_words, ",")
    for (i = 1; i in routine_events; i++) routine[routine_events[i]] = i
    split("health_checked btc_price_requested create_buy_order_response_returned", names, " ")
    for (i in names) hidden[names[i]] = 1
    split("event level service logged_at request_id trace_id span_id client_id source timestamp", names, " ")
    for (i in names) left_out[names[i]] = 1
    split("currency amount rate error error_text info text reason request variable database queue_name role", names, " ")
    for (i in names) without_name[names[i]] = 1
}

/\001$/ {
    begun = begun substr($0, 1, length($0) - 1)
    if (++ticks % WINDOW_S == 0) close_window()
    next
}
{
    line = begun $0
    begun = ""
    sub(/\r$/, "", line)
    gsub(/[\001-\037\177]/, " ", line)
}
# A header of tail names the file from which the next lines come.
line ~ /^==> .*\.log <==$/ {
    file = line
    sub(/\.log <==$/, "", file)
    sub(/^.*[ \/]/, "", file)
    next
}
line ~ /^ *$/ || line ~ /^Attaching to / { next }
{
    part = file
    # Compose writes service_1 or service-1, spaces and a bar before each line.
    if (match(line, /^[a-z][a-z0-9_-]*[_-][0-9]+ *\| ?/)) {
        part = substr(line, 1, RLENGTH)
        line = substr(line, RLENGTH + 1)
        sub(/ *\| ?$/, "", part)
        sub(/[_-]1$/, "", part)
    }
    if (line ~ /^\{"event":".*\}$/) show_event(line)
    else if (command) print line
    else show_line(line)
}
END {
    if (begun != "") show_line(begun)
    close_window()
}

function show_event(line,    name, text, level) {
    name = substr(line, 11, index(substr(line, 11), "\"") - 1)
    # Before anything is parsed: under load, most lines end here.
    if (name in hidden) return
    if (name in routine && withhold(name)) return
    level = "INFO"
    text = name fields_of(line)
    if (match(line, /"level":"[A-Z]+"/)) level = substr(line, RSTART + 9, RLENGTH - 10)
    if (match(line, /"logged_at":"[^"]*"/)) time = substr(line, RSTART + 24, 8)
    if (match(line, /"service":"[^"]*"/) && part == "") part = substr(line, RSTART + 11, RLENGTH - 12)
    if (command && level != "WARN" && level != "ERROR") return
    if (!(name in routine) && is_repeat(name, level, text)) return
    write(time, part, text, name in routine ? "routine" : level)
}

# Lines of the servers begin with their time.
function show_line(line,    level, at) {
    at = time
    level = "routine"
    if (line ~ /panicked at|\[error\]|\[critical\]| (ERROR|FATAL|PANIC): /) level = "ERROR"
    else if (line ~ /\[warn(ing)?\]| WARNING: /) level = "WARN"
    # Fluentd repeats the events of the services.
    if (part ~ /^log/ && line ~ / pydist\.[a-z_.]+: *\{/) return
    if (level == "routine" && withhold("line")) return
    if (match(line, /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]/)) {
        at = time = substr(line, 12, 8)
        line = substr(line, 20)
        sub(/^[0-9.:+]* *(UTC|[+]0000)? *(\[[0-9]+\] )?/, "", line)
    }
    write(at, part, line, level)
}

# Whether a routine line is only counted. After a busy time all of them are, until it is quiet again.
function withhold(name) {
    if (!ticks) return 0
    counts[name]++
    if (!busy && ++shown <= MAX_ROUTINE) return 0
    withheld++
    return 1
}

# Whether the same was shown since the last status. Failures with the same name are the same, whatever they say.
function is_repeat(name, level, text,    key) {
    if (!ticks) return 0
    key = part SUBSEP name SUBSEP (level == "INFO" ? text : "")
    if (!(key in repeats)) {
        repeats[key] = 0
        keys_in_order[++keys_seen] = key
        return 0
    }
    repeats[key]++
    repeated[key] = text
    levels[key] = level
    return 1
}

function close_window(    key, keys, i, text, total) {
    for (i = 1; i <= keys_seen; i++) {
        key = keys_in_order[i]
        split(key, keys, SUBSEP)
        if (repeats[key] > 0) write(time, keys[1], keys[2] " ×" repeats[key] " more" substr(repeated[key], length(keys[2]) + 1), levels[key])
        delete repeats[key]
    }
    keys_seen = 0
    for (i = 1; i in routine_events; i++) {
        key = routine_events[i]
        if (counts[key] > 0) text = text (text == "" ? "" : ", ") counts[key] " " routine_words[i]
        total += counts[key]
        delete counts[key]
    }
    if (withheld > 0) write(time, "", "in " WINDOW_S " s: " text, "status")
    busy = total > MAX_ROUTINE
    shown = withheld = 0
}

# The fields of an event that say something to a person, in their order. Ids are shortened.
function fields_of(line,    rest, key, value, text) {
    rest = substr(line, 2)
    while (match(rest, /^"[^"\\]*":/)) {
        key = substr(rest, 2, RLENGTH - 3)
        rest = substr(rest, RLENGTH + 1)
        if (match(rest, /^"([^"\\]|\\.)*"/)) value = plain(substr(rest, 2, RLENGTH - 2))
        else if (match(rest, /^(\[[^]]*\]|[^,}]*)/)) value = substr(rest, 1, RLENGTH)
        rest = substr(rest, RLENGTH + 2)
        if (key in left_out || value == "" || value == "null") continue
        if (value ~ /^[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+$/ && length(value) == 36) value = substr(value, 1, 8)
        text = text " " (key in without_name ? value : key "=" value)
    }
    return text
}

# A JSON string without its escapes. Control characters become spaces.
function plain(string) {
    if (!index(string, "\\")) return string
    gsub(/\\[nrtbf]/, " ", string)
    gsub(/\\u00[01][0-9a-f]/, " ", string)
    gsub(/\\"/, "\"", string)
    gsub(/\\\//, "/", string)
    gsub(/\\\\/, "\\", string)
    return string
}

function write(at, who, text, level,    line, code) {
    if (at == "") at = "        "
    line = at " " (who == "" ? "" : sprintf("%-16s ", who)) text
    if (width > 0) line = cut(line)
    code = level == "ERROR" ? 31 : level == "WARN" ? 33 : level == "status" ? 1 : level == "INFO" ? 0 : 2
    if (colour && code) line = "\033[" code "m" line "\033[0m"
    print line
    fflush()
}

# A line of at most `width` characters. In UTF-8, the bytes 128 to 191 continue a character.
function cut(line,    i, characters, end) {
    if (length(line) <= width) return line
    for (i = 1; i <= length(line); i++) {
        if (substr(line, i, 1) ~ /[\200-\277]/) continue
        if (++characters == width) end = i - 1
        if (characters > width) return substr(line, 1, end) "…"
    }
    return line
}
