#!/usr/bin/env bash
# Makes sure that a Docker engine and Compose work on this machine.
#
#   scripts/ensure_docker.sh         does nothing if both work; else installs (apt) and starts what is missing
#   scripts/ensure_docker.sh stop    stops the engine that this script started, and nothing else
#
# Installing and starting need root or passwordless sudo, and Debian or Ubuntu. Packages stay installed.
set -euo pipefail
# shellcheck source=scripts/docker_engine.sh
. "$(dirname "${BASH_SOURCE[0]}")/docker_engine.sh"

# Outside the repository: the clones on a machine share one engine.
STATE_DIR=/run/pydist-docker
STARTED=$STATE_DIR/started # what was started: "service", or dockerd's pid
LOG=$STATE_DIR/dockerd.log
START_LIMIT_S=60

say() { echo "ensure_docker: $*"; }
fail() {
    echo "ensure_docker: $*" >&2
    exit 1
}

compose_answers() { docker compose version >/dev/null 2>&1 || docker-compose version >/dev/null 2>&1; }

become_root() {
    [ "$(id -u)" -eq 0 ] && return
    sudo -n true 2>/dev/null || fail "Docker has to be $1, which needs root: run this script as root once."
    exec sudo -n "$0" "${ARGS[@]}"
}

install_packages() {
    if command -v dockerd >/dev/null && command -v docker >/dev/null && compose_answers; then return; fi
    command -v apt-get >/dev/null || fail "Docker or Compose is missing and there is no apt-get here: please install them, then try again."
    # An unreachable third-party source must not fail an installation that does not need it.
    apt-get update -qq || say "apt-get update reported a fault, going on with what is known"
    local packages=()
    command -v dockerd >/dev/null || packages+=(docker.io)
    # Debian 13 moved the client out of docker.io.
    if ! command -v docker >/dev/null && apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
    compose_answers || packages+=(docker-compose)
    say "installing ${packages[*]} with apt"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
        fail "apt could not install ${packages[*]}: see its message above."
}

# Waits until the engine answers; false once process $1 is gone or the limit is reached.
wait_for_engine() {
    local deadline=$((SECONDS + START_LIMIT_S))
    until engine_answers; do
        if [ -n "$1" ] && ! kill -0 "$1" 2>/dev/null; then return 1; fi
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.2
    done
}

# Starts dockerd with the given arguments, detached from this terminal.
start_daemon() {
    say "starting dockerd${*:+ $*}"
    setsid nohup dockerd "$@" >"$LOG" 2>&1 </dev/null &
    local pid=$!
    if wait_for_engine "$pid"; then
        echo "$pid" >"$STARTED"
        return
    fi
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    return 1
}

start_engine() {
    mkdir -p "$STATE_DIR"
    if [ -d /run/systemd/system ] && systemctl start docker 2>/dev/null && wait_for_engine ""; then
        echo service >"$STARTED"
        return
    fi
    # The defaults suit most machines. Old kernels lack nf_tables; nested ones lack overlayfs.
    start_daemon && return
    local legacy
    legacy=$(command -v iptables-legacy || true)
    if [ -n "$legacy" ]; then
        mkdir -p "$STATE_DIR/bin"
        ln -sf "$legacy" "$STATE_DIR/bin/iptables"
        ln -sf "${legacy/iptables/ip6tables}" "$STATE_DIR/bin/ip6tables"
        PATH="$STATE_DIR/bin:$PATH" start_daemon && return
    fi
    start_daemon --storage-driver=vfs && return
    tail -n 20 "$LOG" >&2
    fail "dockerd does not start on this machine: the end of its log is above, the whole in $LOG."
}

stop_engine() {
    if [ ! -f "$STARTED" ]; then
        say "no engine was started by this script, nothing to stop"
        return
    fi
    become_root "stopped"
    local started
    started=$(cat "$STARTED")
    if [ "$started" = service ]; then
        systemctl stop docker.socket docker.service
    elif [ "$(cat "/proc/$started/comm" 2>/dev/null)" = dockerd ]; then
        kill "$started"
        local deadline=$((SECONDS + START_LIMIT_S))
        while kill -0 "$started" 2>/dev/null; do
            [ $SECONDS -lt $deadline ] || fail "dockerd (pid $started) did not stop within $START_LIMIT_S s."
            sleep 0.2
        done
    fi
    rm -f "$STARTED"
    say "the engine is stopped"
}

ARGS=("$@")
case "${1:-start}" in
start)
    ask_engine
    if [ "$engine" = answers ] && compose_answers; then exit 0; fi
    # Another engine would not help.
    case $engine in refuses | silent | lost) fail "$engine_fault" ;; esac
    become_root "installed or started"
    answered=$engine
    install_packages
    if ! engine_answers; then
        start_engine
    elif [ "$answered" != answers ]; then
        # The package started its service.
        mkdir -p "$STATE_DIR"
        echo service >"$STARTED"
    fi
    compose_answers || fail "the engine answers but Compose does not."
    say "engine $(docker version --format '{{.Server.Version}}') answers"
    ;;
stop) stop_engine ;;
*) fail "unknown argument '$1': start, stop or none" ;;
esac
