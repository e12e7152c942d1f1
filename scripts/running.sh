# shellcheck shell=bash
# Sourced, in the root of the repository: tells what is running of this clone.

# A native cluster holds its lock while it runs.
runs_natively() { [ -e .cluster/lock ] && ! flock --nonblock .cluster/lock true 2>/dev/null; }

# ./run.sh writes this record before the first container starts. It is removed after the last has ended.
runs_in_docker() { [ -e .cluster/docker_mode ]; }
