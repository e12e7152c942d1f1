#!/usr/bin/env bash
# Runs Compose in the repository's root with the arguments given: v2 (`docker compose`) where the client has it, else `docker-compose`.
#
#   scripts/compose.sh project    prints the name of the project instead
#
# The project's name is COMPOSE_PROJECT_NAME. Compose's own default, the name of the folder, another project on the machine may have as well,
# and `down` and `--remove-orphans` would then take what is not ours: ours tells the clone by its path.
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
# The files of the cluster that ./run.sh started: without that of the price simulator its containers would be changed and its simulator lost.
record=.cluster/docker_mode
if [ -z "${COMPOSE_FILE:-}" ] && [ -e "$record" ] && [ "$(sed -n 1p "$record")" = "$COMPOSE_PROJECT_NAME" ]; then
    COMPOSE_FILE=$(sed -n 2p "$record")
    export COMPOSE_FILE
fi
if docker compose version >/dev/null 2>&1; then exec docker compose "$@"; fi
if command -v docker-compose >/dev/null; then exec docker-compose "$@"; fi
echo "compose: neither 'docker compose' nor 'docker-compose' is here: run scripts/ensure_docker.sh" >&2
exit 1
