# shellcheck shell=bash
# Sourced, in the root of the repository: admin commands in the cluster that ./run.sh started, in either mode.

# shellcheck source=scripts/running.sh
. scripts/running.sh

# admin SERVICE ARGUMENTS...: runs the service's own binary in the environment of the running service, but with our values of the variables
# that `replaced` names.
admin() {
    local service=$1 process name options=()
    shift
    if has_containers; then
        # In a pipe, Compose must not allocate a terminal.
        [ -t 0 ] && [ -t 1 ] || options=(-T)
        # By name only: Compose reads the value from its own environment, as every user of the machine can read arguments.
        for name in "${replaced[@]}"; do options+=(-e "$name"); done
        scripts/compose.sh run --rm --no-deps "${options[@]}" "$service" "$@"
        return
    fi
    runs_natively || {
        echo "${0##*/}: no cluster of this clone runs: ./run.sh starts one" >&2
        return 1
    }
    process=$(native_process "$service") || return
    run_again "$process" "$@"
}
