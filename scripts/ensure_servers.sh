#!/usr/bin/env bash
# Makes sure that the programs of PostgreSQL and RabbitMQ are installed, for our private instances. If they are missing, it installs them
# with apt, as root or by passwordless sudo, or says in one sentence what to install. Starts nothing.
#
#   scripts/ensure_servers.sh [--for-tests | --for-bench]
#
#   --for-tests    with Prometheus, Alertmanager and postgres_exporter, too, which check metrics, alert rules and dashboards; libfaketime,
#                  which sets a clock wrong; a PgBouncer; HAProxy, which is the entry; Chromium and its driver (400 MB, half a minute), by
#                  which pages are tried behind a prefix; Python, for schemathesis, and its requests, a client; other awks, and script,
#                  which gives a program a terminal
#   --for-bench    with wrk, too, which makes load; pgbench comes with PostgreSQL
# With VERBOSE set, the output of apt is shown; without it, a line of progress.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/progress.sh
. scripts/progress.sh

purpose=${1:-}
say() { echo "ensure_servers: $*"; }
fail() {
    echo "ensure_servers: $*" >&2
    exit 1
}
case "$purpose" in '' | --for-tests | --for-bench) ;; *) fail "unknown argument '$purpose': --for-tests, --for-bench or none" ;; esac

# The packages of what is missing.
missing_packages() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || echo postgresql
    [ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null || echo rabbitmq-server
    command -v cc >/dev/null || echo gcc libc6-dev
    command -v setpriv >/dev/null || echo util-linux
    case "$purpose" in
    --for-tests)
        command -v promtool >/dev/null || echo prometheus
        command -v prometheus-alertmanager >/dev/null || echo prometheus-alertmanager
        command -v prometheus-postgres-exporter >/dev/null || echo prometheus-postgres-exporter
        for awk in mawk busybox original-awk; do command -v "$awk" >/dev/null || echo "$awk"; done
        command -v script >/dev/null || echo bsdutils
        command -v haproxy >/dev/null || [ -e /usr/sbin/haproxy ] || echo haproxy
        /usr/bin/python3 -c 'import requests' 2>/dev/null || echo python3-requests
        compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || echo libfaketime
        command -v chromedriver >/dev/null || echo chromium chromium-driver
        python3 -c 'import ensurepip' 2>/dev/null || echo python3 python3-venv
        ;;
    --for-bench)
        command -v wrk >/dev/null || echo wrk
        ;;
    esac
}

# Runs a command as root: apt needs it.
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# The packages would start system servers, which nobody asked for. A policy forbids it while apt runs. The system's own policy is moved
# aside meanwhile. Ours has a mark: one that a killed run left behind is not mistaken for the system's.
POLICY=/usr/sbin/policy-rc.d
POLICY_ASIDE=$POLICY.before-pydist
MARK='# made by ensure_servers.sh of pydist'

forbid_starts() {
    as_root sh -c "[ ! -e $POLICY ] || grep -q '$MARK' $POLICY || mv $POLICY $POLICY_ASIDE
        printf '#!/bin/sh\n$MARK\nexit 101\n' >$POLICY && chmod 755 $POLICY"
}

allow_starts() {
    as_root sh -c "! grep -qs '$MARK' $POLICY || rm -f $POLICY
        [ ! -e $POLICY_ASIDE ] || mv $POLICY_ASIDE $POLICY"
}

install_packages() {
    local packages
    packages=$(missing_packages | tr '\n' ' ')
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null || fail "missing here, and there is no apt-get to install it with: $packages"
    as_root true 2>/dev/null || fail "missing here: please install it with: sudo apt-get install $packages"
    local by=
    [ "$(id -u)" -eq 0 ] || by=" by sudo"
    say "installing these packages$by with apt; they stay installed:"
    echo "  $packages"
    # apt must finish, and the policy must be removed.
    trap '' INT HUP TERM
    trap allow_starts EXIT
    forbid_starts
    # shellcheck disable=SC2086
    with_progress "installing packages" "${CARGO_TARGET_DIR:-target}/apt.log" run_apt $packages || fail "apt could not install $packages: see above"
}

# run_apt PACKAGES...: an unreachable third-party source must not fail an installation that does not need it.
run_apt() {
    as_root apt-get update -q || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

install_packages
# Not a package of this system: see that script.
[ "$purpose" != --for-tests ] || scripts/ensure_pgbouncer.sh >/dev/null
