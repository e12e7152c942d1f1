# shellcheck shell=bash
# Sourced: shows a long command as one line of progress.

progress=

# with_progress WHAT LOG COMMAND...: runs the command with its output in the file LOG and shows how long it has run: in a terminal in one line,
# elsewhere in a line each 30 s. If the command fails, prints the end of its output. With VERBOSE set, prints all output and no progress.
with_progress() {
    local what=$1 log=$2 started=$SECONDS outcome=0
    shift 2
    if [ -n "${VERBOSE:-}" ]; then
        "$@"
        return
    fi
    mkdir -p "$(dirname "$log")"
    : >"$log"
    show_progress "$what" "$log" &
    progress=$!
    # In the foreground, so that Ctrl-C ends it.
    "$@" >"$log" 2>&1 </dev/null || outcome=$?
    stop_progress
    if [ $outcome -ne 0 ]; then
        tr '\r' '\n' <"$log" | grep -vE '^ *$|^ *Building \[' | tail -n 30 >&2
        echo "The end of the output is above, all of it in $log." >&2
    elif [ $((SECONDS - started)) -ge 2 ]; then
        echo "$what: done after $(minutes $((SECONDS - started)))"
    fi
    return $outcome
}

# Ends the line of progress, also when the command was interrupted.
stop_progress() {
    [ -n "$progress" ] || return 0
    # Where the caller ignores other signals, so does this process.
    kill -KILL "$progress" 2>/dev/null || true
    wait "$progress" 2>/dev/null || true
    progress=
    if [ -t 1 ]; then printf '\r\033[K'; fi
}

# show_progress WHAT LOG: until it is killed, or this script has ended.
show_progress() {
    local started=$SECONDS next=30 line
    while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        line="$1: $(steps "$2")$(minutes $((SECONDS - started)))"
        if [ -t 1 ]; then
            printf '\r\033[K%s' "$line"
        elif [ $((SECONDS - started)) -ge $next ]; then
            echo "$line"
            next=$((next + 30))
        fi
    done
}

# Cargo says "] 143/320: ..." when it is asked for its progress, and "Blocking ..." while another build has its folder.
steps() {
    tail -c 400 "$1" | tr '\r' '\n' |
        sed -n 's|.*\] *\([0-9][0-9]*\)/\([0-9][0-9]*\)[:, ].*|\1 of \2 crates, |p; s|^ *Blocking .*|waiting for another build, |p' | tail -n 1
}

# minutes SECONDS: as "1 min 20 s".
minutes() { if [ "$1" -ge 60 ]; then echo "$(($1 / 60)) min $(($1 % 60)) s"; else echo "$1 s"; fi; }
