# shellcheck shell=bash
# Sourced: whether a Docker engine can be used, and if not, why and what to do.

ENGINE_LIMIT_S=10

# within SECONDS COMMAND...: runs a command and puts what it says into `said`. Fails if the command does, and with 124 if it takes longer:
# macOS has no `timeout`.
within() {
    local limit=$1 output program guard='' outcome=0
    shift
    output=$(mktemp)
    "$@" >"$output" 2>&1 &
    program=$!
    trap 'kill "$program" $guard 2>/dev/null; rm -f "$output"; exit 130' INT TERM HUP
    (
        trap 'kill "$sleeping"; exit 0' TERM
        sleep "$limit" &
        sleeping=$!
        wait "$sleeping"
        : >"$output.late"
        kill -KILL "$program"
    ) >/dev/null 2>&1 &
    guard=$!
    wait "$program" 2>/dev/null || outcome=$?
    kill "$guard" 2>/dev/null || true
    wait "$guard" 2>/dev/null || true
    trap - INT TERM HUP
    said=$(<"$output")
    [ ! -e "$output.late" ] || outcome=124
    rm -f "$output" "$output.late"
    return $outcome
}

# ask_engine: asks the engine for its version. `engine` is then one of:
#   answers   it can be used
#   missing   there is no program `docker`
#   refuses   it runs, but not for this user
#   silent    it takes a connection and does not answer
#   away      nothing answers at the usual address
#   lost      nothing answers where DOCKER_HOST or a context points to
# `engine_fault` is a sentence for people, with what to do; it is empty if the engine answers.
ask_engine() {
    local said='' outcome=0 user context
    engine_fault=''
    user=$(id -un)
    if ! command -v docker >/dev/null; then
        engine=missing engine_fault="there is no Docker here: install it (scripts/ensure_docker.sh does on Debian and Ubuntu)"
        return
    fi
    within "$ENGINE_LIMIT_S" docker version --format '{{.Server.Version}}' || outcome=$?
    if [ $outcome -eq 0 ]; then
        engine=answers
        return
    fi
    # Docker's last line says what is wrong; it may have warned before.
    said=${said##*$'\n'}
    context=${DOCKER_CONTEXT:-$(docker context show 2>/dev/null || true)}
    if [ $outcome -eq 124 ]; then
        engine=silent
        engine_fault="the Docker engine takes connections but does not answer within $ENGINE_LIMIT_S s: restart it (sudo systemctl restart docker)"
        [ -z "${DOCKER_HOST:-}" ] || engine_fault="what DOCKER_HOST names, $DOCKER_HOST, does not answer within $ENGINE_LIMIT_S s: mend it, or unset DOCKER_HOST"
    elif [ -n "${DOCKER_HOST:-}" ]; then
        engine=lost engine_fault="no Docker engine answers where DOCKER_HOST points to, $DOCKER_HOST ($said): mend it, or unset DOCKER_HOST"
    elif [ -n "$context" ] && [ "$context" != default ]; then
        engine=lost engine_fault="no Docker engine answers in Docker's context $context ($said): start it, or run: docker context use default"
    elif [[ $said == *"permission denied"* ]]; then
        engine=refuses
        engine_fault="a Docker engine runs, but user $user may not use it: sudo usermod -aG docker $user, then log in again"
        case " $(id -nG "$user" 2>/dev/null) " in
        *' docker '*) engine_fault="a Docker engine runs, and user $user was added to its group after this login: log in again, or run: newgrp docker" ;;
        esac
    else
        engine=away
        engine_fault="no Docker engine runs here ($said): start it (sudo systemctl start docker, or Docker Desktop), or run scripts/ensure_docker.sh"
    fi
}

engine_answers() {
    # shellcheck disable=SC2034 # ask_engine sets them
    local engine engine_fault
    ask_engine
    [ "$engine" = answers ]
}
