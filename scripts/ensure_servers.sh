#!/usr/bin/env bash
# Makes sure that the programs of PostgreSQL and RabbitMQ are installed, for private instances of ours. Does nothing where they are; else
# installs them with apt, as root or by passwordless sudo, or says in one sentence what to install. Starts nothing.
set -euo pipefail

say() { echo "ensure_servers: $*"; }
fail() {
    echo "ensure_servers: $*" >&2
    exit 1
}

# The packages of what is missing.
missing_packages() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || echo postgresql
    [ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null || echo rabbitmq-server
    command -v cc >/dev/null || echo gcc libc6-dev
    command -v setpriv >/dev/null || echo util-linux
}

install_packages() {
    local packages sudo=()
    packages=$(missing_packages | tr '\n' ' ')
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null || fail "missing here, and there is no apt-get to install it with: $packages"
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || fail "missing here: please install it with: sudo apt-get install $packages"
        sudo=(sudo -n)
    fi
    say "installing with apt: $packages"
    # The packages start servers of the system's own, which nobody asked for: this forbids it while apt runs.
    local policy=/usr/sbin/policy-rc.d
    "${sudo[@]}" sh -c "[ ! -e $policy ] || mv $policy $policy.before-pydist; printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy"
    local outcome=0
    # A third-party source that is away must not stop an installation that does not need it.
    "${sudo[@]}" apt-get update -q || true
    # shellcheck disable=SC2086
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages || outcome=1
    "${sudo[@]}" sh -c "rm -f $policy; [ ! -e $policy.before-pydist ] || mv $policy.before-pydist $policy"
    [ $outcome -eq 0 ] || fail "apt could not install $packages: see above"
}

# Ctrl-C during the installation must not leave apt's policy behind.
trap '' INT
install_packages
