#!/usr/bin/env bash
# Proves the system: ./test.sh [unit | integration | faults | docker | all]
#
#   unit          rules and parsers, without servers
#   integration   real binaries on private PostgreSQL and RabbitMQ instances, over HTTP
#   faults        breaks the cluster under load, once in every known way: no order may be lost or doubled (docs/RELIABILITY.md);
#                 --seed N, --seeds N, --only NAME, --minutes N, --list and --report PAGE choose what: ./test.sh faults --help
#   docker        the images, and the same black-box suite against docker-compose
#   all           everything; without an argument: everything this machine can run
#
# Needs no running cluster and does not touch one: the suites start their own servers on free ports.

# The suites are called by their names, which shellcheck does not see.
# shellcheck disable=SC2317
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=scripts/docker_engine.sh
. scripts/docker_engine.sh

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }
fail() { echo "test.sh: $*" >&2; exit 1; }

wanted=${1:-possible}
case "$wanted" in
unit | integration | faults | docker | all | possible) ;;
-h | --help) usage; exit 0 ;;
*)
    echo "test.sh: unknown suite '$wanted': unit, integration, faults, docker or all" >&2
    exit 2
    ;;
esac
[ $# -eq 0 ] || shift
[ $# -eq 0 ] || [ "$wanted" = faults ] || {
    echo "test.sh: unknown argument '$1': only the suite 'faults' takes any" >&2
    exit 2
}
fault_arguments=("$@")
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || fail "cargo is missing: install Rust, https://rustup.rs"

summary=()
failed=0

# record SUITE OUTCOME: adds a line to the summary.
record() { summary+=("$(printf '%-12s %s' "$1" "$2")"); }

# run SUITE COMMAND...: runs a suite and records how it went.
run() {
    local suite=$1 started=$SECONDS
    shift
    echo "== $suite"
    if "$@"; then
        record "$suite" "passed in $((SECONDS - started)) s"
    else
        record "$suite" "FAILED after $((SECONDS - started)) s"
        failed=1
    fi
}

run_unit() { cargo test --release --workspace --lib && cargo test --release --workspace --doc; }

# The flags that select every integration test. With --test '*', cargo would demand the feature "compose", whose test needs an engine.
integration_tests() {
    find crates -path '*/tests/*.rs' -not -path 'crates/cluster/tests/compose/*' |
        sed -nE 's|crates/[^/]+/tests/([^/]+)(\.rs\|/main\.rs)$|--test=\1|p' | sort -u
}

# The tests start the same binaries as ./run.sh, so these are built first.
run_integration() {
    local tests
    mapfile -t tests < <(integration_tests)
    # Most of the time the tests wait for servers to start, and for timeouts: with one for each processor, half of the processors is idle.
    export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(getconf _NPROCESSORS_ONLN) * 2))}
    cargo build --release --workspace --bins &&
        "${CARGO_TARGET_DIR:-target}/release/cluster" with-servers -- cargo test --release --workspace --no-fail-fast "${tests[@]}"
}

run_faults() {
    cargo build --release --workspace --bins && "${CARGO_TARGET_DIR:-target}/release/faults" "${fault_arguments[@]}"
}

missing_for_unit() { :; }

# What the integration suite needs besides Rust.
missing_for_integration() {
    if ! scripts/ensure_servers.sh --for-tests >&2; then
        echo "PostgreSQL, RabbitMQ, promtool, HAProxy, Chromium or Python (apt-get install postgresql rabbitmq-server prometheus prometheus-alertmanager prometheus-postgres-exporter libfaketime haproxy chromium-driver python3-venv python3-requests) is missing"
    elif ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        echo "Node.js, which the tests of fluent_logger use (apt-get install nodejs npm) is missing"
    fi
}

# The faults include a wrong clock, a small disk and limits of other processes. They need more than the servers.
missing_for_faults() {
    if ! scripts/ensure_servers.sh --for-tests >&2; then
        echo "PostgreSQL, RabbitMQ, libfaketime or promtool (apt-get install postgresql rabbitmq-server libfaketime prometheus) is missing"
    elif [ "$(id -u)" -ne 0 ]; then
        echo "root, which mounting a small disk takes, is missing"
    fi
}

missing_for_docker() {
    local engine engine_fault
    ask_engine
    if [ -n "$engine_fault" ]; then
        echo "$engine_fault"
    elif ! scripts/compose.sh version >/dev/null 2>&1; then
        echo "Compose (scripts/ensure_docker.sh installs it) is missing"
    elif ! command -v psql >/dev/null || ! command -v openssl >/dev/null; then
        echo "psql or openssl (apt-get install postgresql-client openssl) is missing"
    fi
}

wants() { [ "$wanted" = "$1" ] || [ "$wanted" = all ] || [ "$wanted" = possible ]; }

# suite NAME: runs it. When something is missing, it is left out if ./test.sh has no argument; otherwise it fails.
suite() {
    local name=$1 missing
    wants "$name" || { record "$name" "left out: not asked for"; return; }
    missing=$("missing_for_$name") || missing="what it needs is missing"
    if [ -z "$missing" ]; then
        run "$name" "run_$name"
    elif [ "$wanted" = possible ]; then
        record "$name" "left out: $missing"
    else
        record "$name" "FAILED: $missing"
        failed=1
    fi
}

run_docker() { scripts/test_docker.sh; }

for name in unit integration faults docker; do suite "$name"; done

echo
echo "test.sh:"
printf '  %s\n' "${summary[@]}"
exit "$failed"
