#!/usr/bin/env bash
# Makes sure that Chromium, Node.js and npm are installed, by which scripts/check_console.sh looks at the console. If they are missing, it
# installs them with apt, as root or by passwordless sudo, or says in one sentence what to install.
# With VERBOSE set, the output of apt is shown; without it, a line of progress.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/progress.sh
. scripts/progress.sh

NODE_MIN=18

fail() {
    echo "ensure_browser: $*" >&2
    exit 1
}

# The packages of what is missing. CHROMIUM names another browser. A page without any font shows no text.
missing_packages() {
    [ -n "${CHROMIUM:-}" ] || [ -x /usr/bin/chromium ] || echo chromium fonts-dejavu-core
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# run_apt PACKAGES...: an unreachable third-party source must not fail an installation that does not need it.
run_apt() {
    as_root apt-get update -q || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

install_packages() {
    local packages
    packages=$(missing_packages | tr '\n' ' ')
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null || fail "missing here, and there is no apt-get to install it with: $packages"
    as_root true 2>/dev/null || fail "missing here: please install it with: sudo apt-get install --no-install-recommends $packages"
    echo "ensure_browser: installing these packages with apt; they stay installed: $packages"
    # shellcheck disable=SC2086 # words
    with_progress "installing packages" "${CARGO_TARGET_DIR:-target}/apt.log" run_apt $packages || fail "apt could not install $packages: see above"
}

install_packages
version=$(node --version)
version=${version#v}
[ "${version%%.*}" -ge $NODE_MIN ] || fail "Node.js is $version, and $NODE_MIN or later is needed"
