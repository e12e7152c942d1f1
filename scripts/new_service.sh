#!/usr/bin/env bash
# Adds a service after the pattern of one that exists: scripts/new_service.sh --help
cd "$(dirname "${BASH_SOURCE[0]}")/.." && exec cargo run --quiet --release --package new_service -- "$@"
