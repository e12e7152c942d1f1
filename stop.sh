#!/usr/bin/env bash
# Stops whatever ./run.sh started, in either mode, and nothing else. The data is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
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

stopped=
if [ -e .cluster/docker_mode ]; then
    files=(-f docker-compose.yml)
    read -r prices project <.cluster/docker_mode
    [ "$prices" != simulator ] || files+=(-f docker-compose.simulator.yml)
    echo "stop.sh: stopping the containers"
    [ -z "$project" ] || export COMPOSE_PROJECT_NAME=$project
    scripts/compose.sh "${files[@]}" down --timeout 40
    rm -f .cluster/docker_mode
    stopped=1
fi
if [ -s .cluster/lock ]; then
    # The program that runs, also where the one on disk was deleted or built anew since.
    running=/proc/$(cat .cluster/lock)/exe
    built=${CARGO_TARGET_DIR:-target}/release/cluster
    if [[ "$(readlink "$running" 2>/dev/null)" == */cluster* ]]; then
        "$running" stop
        stopped=1
    elif [ -x "$built" ]; then
        "$built" stop
        stopped=1
    fi
fi
[ -n "$stopped" ] || echo "stop.sh: nothing runs that ./run.sh started"
