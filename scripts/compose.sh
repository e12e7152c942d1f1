#!/usr/bin/env bash
# Runs Compose in the repository's root with the arguments given: v2 (`docker compose`) where the client has it, else `docker-compose`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if docker compose version >/dev/null 2>&1; then exec docker compose "$@"; fi
if command -v docker-compose >/dev/null; then exec docker-compose "$@"; fi
echo "compose: neither 'docker compose' nor 'docker-compose' is here: run scripts/ensure_docker.sh" >&2
exit 1
