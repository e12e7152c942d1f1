# shellcheck shell=bash
# Sourced, in the root of the repository: admin commands in the cluster that ./run.sh started, in either mode.

# shellcheck source=scripts/running.sh
. scripts/running.sh

# admin SERVICE ARGUMENTS...: runs the service's own binary in the environment of the running service.
admin() {
    local service=$1 process terminal=()
    shift
    if runs_in_docker; then
        # In a pipe, Compose must not allocate a terminal.
        [ -t 0 ] && [ -t 1 ] || terminal=(-T)
        scripts/compose.sh run --rm --no-deps "${terminal[@]}" "$service" "$@"
        return
    fi
    runs_natively || {
        echo "${0##*/}: no cluster of this clone runs: ./run.sh starts one" >&2
        return 1
    }
    process=$(native_process "$service") || return
    run_again "$process" "$@"
}
