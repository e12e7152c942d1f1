#!/usr/bin/env bash
# Stops what ./run.sh started, in either mode, and nothing else. The data is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/running.sh
. scripts/running.sh
# shellcheck source=scripts/docker_engine.sh
. scripts/docker_engine.sh
case "${1:-}" in
'') ;;
-h | --help)
    sed -n '2s/^# //p' "$0"
    exit 0
    ;;
*)
    echo "stop.sh: unknown argument '$1': it takes none" >&2
    exit 1
    ;;
esac

# The project that was started, even if the environment names another one now.
stop_docker() {
    local project files
    { read -r project && read -r files; } <.cluster/docker_mode || true
    ask_engine
    if [ -n "$engine_fault" ]; then
        echo "stop.sh: $engine_fault" >&2
        return 1
    fi
    echo "stop.sh: stopping the containers"
    COMPOSE_PROJECT_NAME=$project COMPOSE_FILE=$files scripts/compose.sh down --remove-orphans --timeout 40 || return 1
    rm -f .cluster/docker_mode
    echo "stop.sh: stopped; the data is kept"
}

# The running program, even if its file was deleted or rebuilt since; otherwise the built one.
cluster_program() {
    local running built=${CARGO_TARGET_DIR:-target}/release/cluster
    running=/proc/$(cat .cluster/lock)/exe # Linux
    case "$(basename "$(readlink "$running" 2>/dev/null)")" in
    cluster | 'cluster (deleted)') echo "$running" ;;
    *) [ ! -x "$built" ] || echo "$built" ;;
    esac
}

stopped='' failed=0
if runs_in_docker; then
    stopped=1
    stop_docker || failed=1
fi
# A killed cluster leaves a list of its processes. They may still be ending.
if runs_natively || [ -e .cluster/processes ]; then
    program=$(cluster_program)
    if [ -n "$program" ]; then
        stopped=1
        "$program" stop || failed=1
    fi
fi
[ -n "$stopped" ] || echo "stop.sh: nothing runs that ./run.sh started"
exit $failed
