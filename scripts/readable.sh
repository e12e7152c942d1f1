# shellcheck shell=bash
# Sourced, in the root of the repository: the log for a person at a terminal. Pipes and files get it as it is: JSON lines.

# readable VARIABLE=VALUE...: makes readable lines of the log (scripts/readable.awk), as wide as the terminal that standard output is.
# Ctrl-C does not end it: it shows also the last lines of the programs that Ctrl-C ends.
readable() (
    trap '' INT QUIT
    width=${COLUMNS:-} colour=0 options=()
    if [ -z "$width" ]; then
        { width=$(stty size <&3 2>/dev/null) || width=80; } 3>&1
        width=${width##* }
        [ "$width" -gt 0 ] || width=80
    fi
    if [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then colour=1; fi
    # In a pipe, mawk otherwise waits for 4096 bytes. Other awks do not know the option.
    case $(awk -W version 2>&1 </dev/null) in mawk*) options=(-W interactive) ;; esac
    for variable in "width=$width" "colour=$colour" "$@"; do options+=(-v "$variable"); done
    # In this locale all awks count bytes.
    LC_ALL=C exec awk ${options[@]+"${options[@]}"} -f scripts/readable.awk
)

# with_ticks COMMAND...: its output, and the byte 1 each second, by which `readable` knows that time passes.
with_ticks() {
    # What sleeps must not keep the pipe open.
    while printf '\001\n'; do sleep 1 >/dev/null 2>&1; done &
    local ticks=$!
    "$@" || true
    kill "$ticks" 2>/dev/null || true
}

# follow_native_logs PROCESS: shows what is logged from when the native cluster with this process is healthy until it has ended.
# Runs beside it.
follow_native_logs() (
    # Ctrl-C ends the cluster, and then this shows its last lines. Only if it is ignored here, the programs below ignore it, too.
    trap '' INT QUIT
    followed=()
    until [ "$(cat .cluster/ready 2>/dev/null)" = "$1" ]; do
        kill -0 "$1" 2>/dev/null || exit 0
        sleep 0.2
    done
    for log in .cluster/logs/*.log; do
        # Not those of the last run, nor rotated ones.
        case ${log##*/} in *.*.log) ;; *) followed+=("$log") ;; esac
    done
    echo "The log follows, one line an event, with times in UTC:"
    with_ticks tail --lines=0 --sleep-interval=0.2 --pid="$1" -F ${followed[@]+"${followed[@]}"} 2>/dev/null | readable command=0 # Linux
)
