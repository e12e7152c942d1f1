# shellcheck shell=bash
# Sourced, in the root of the repository: admin commands in the cluster that ./run.sh started, in either mode.

# shellcheck source=scripts/running.sh
. scripts/running.sh

# shellcheck source=scripts/readable.sh
. scripts/readable.sh

# Set by a script whose command asks the person something, in a line without an end.
asks=

# admin SERVICE ARGUMENTS...: runs the service's own binary in the environment of the running service, but with our values of the variables
# that `replaced` names. What it logs on standard error is made readable where that is a terminal.
admin() {
    if [ -n "$asks" ] || ! [ -t 2 ]; then
        run_admin "$@"
        return
    fi
    # Its standard error goes through the pipe, its standard output past it.
    { run_admin "$@" 2>&1 >&3 3>&- | readable command=1 >&2 3>&-; } 3>&1
}

run_admin() {
    local service=$1 process name options=()
    shift
    if has_containers; then
        # In a pipe, Compose must not allocate a terminal.
        { [ -t 0 ] && [ -t 1 ] && [ -t 2 ]; } || options=(-T)
        # By name only: Compose reads the value from its own environment, as every user of the machine can read arguments.
        for name in ${replaced[@]+"${replaced[@]}"}; do options+=(-e "$name"); done
        scripts/compose.sh run --rm --no-deps ${options[@]+"${options[@]}"} "$service" "$@"
        return
    fi
    runs_natively || {
        echo "${0##*/}: no cluster of this clone runs: ./run.sh starts one" >&2
        return 1
    }
    process=$(native_process "$service") || return
    run_again "$process" "$@"
}
