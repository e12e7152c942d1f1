#!/usr/bin/env bash
# Runs Compose in the repository's root with the given arguments: v2 (`docker compose`) if installed, else `docker-compose`.
#
#   scripts/compose.sh project    prints the name of the project instead
#
# The project's name is COMPOSE_PROJECT_NAME; its default here is made from the path of the clone. Compose's own default is the name of the
# folder. Another project on the machine may have the same, and `down` and `--remove-orphans` would then remove its containers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/settings.sh
. scripts/settings.sh

COMPOSE_PROJECT_NAME=$(setting COMPOSE_PROJECT_NAME)
export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-pydist_$(pwd -P | cksum | cut -d ' ' -f 1)}
if [ "${1:-}" = project ]; then
    echo "$COMPOSE_PROJECT_NAME"
    exit
fi
# Use the files of the cluster that ./run.sh started. Without the simulator's file, Compose would change containers and lose the simulator.
record=.cluster/docker_mode
if [ -z "${COMPOSE_FILE:-}" ] && [ -e "$record" ] && [ "$(sed -n 1p "$record")" = "$COMPOSE_PROJECT_NAME" ]; then
    COMPOSE_FILE=$(sed -n 2p "$record")
    export COMPOSE_FILE
fi
if docker compose version >/dev/null 2>&1; then exec docker compose "$@"; fi
if command -v docker-compose >/dev/null; then exec docker-compose "$@"; fi
echo "compose: neither 'docker compose' nor 'docker-compose' is here: run scripts/ensure_docker.sh" >&2
exit 1
