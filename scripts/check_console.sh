#!/usr/bin/env bash
# Checks the console of the cluster that ./run.sh started, in either mode, in a real Chromium: orders placed by mouse and by keyboard, a
# stopped queue, a console that is away, widths, dark and light. Writes a screenshot of each state to target/console/.
#
#   scripts/check_console.sh [--screenshot FILE]
#
#   --screenshot FILE    checks nothing, places 400 orders in 2 minutes, and writes the picture of the README
#
# It places small orders, which stay, and stops the queue and the console for seconds. The port comes from the environment or .env;
# CONSOLE_URL, if set, replaces the whole address. Needs Chromium, Node.js and npm (scripts/ensure_browser.sh); CHROMIUM names another
# browser than /usr/bin/chromium. playwright-core, which drives it, is installed into a folder of its own below target/, from npm, once: the
# newest version for the Node.js of Debian 12.
set -euo pipefail
case "${1:-} $#" in
' 0' | '--screenshot 2') ;;
'-h 1' | '--help 1')
    sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$0"
    exit 0
    ;;
*)
    sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
    ;;
esac
picture=${2:-}
case $picture in '' | /*) ;; *) picture=$PWD/$picture ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/running.sh
. scripts/running.sh
# shellcheck source=scripts/settings.sh
. scripts/settings.sh

fail() {
    echo "check_console: $*" >&2
    exit 1
}

port=$(setting CONSOLE_EXT_PORT)
port=${port:-8779}
CONSOLE_URL=${CONSOLE_URL:-http://127.0.0.1:$port}
curl --silent --show-error --fail --output /dev/null --max-time 10 --noproxy '*' "$CONSOLE_URL/" || fail "the console does not answer at $CONSOLE_URL: ./run.sh starts it"

scripts/ensure_browser.sh
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
INSTALLED=$target/check_console SCREENSHOTS=$target/console CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
if ! cmp -s scripts/console/package-lock.json "$INSTALLED/installed.json"; then
    rm -rf "$INSTALLED"
    mkdir -p "$INSTALLED"
    cp scripts/console/package.json scripts/console/package-lock.json "$INSTALLED/"
    # Behind a proxy that inspects TLS, npm must trust the host's certificates.
    NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-${SSL_CERT_FILE:-}} npm ci --prefix "$INSTALLED" --ignore-scripts --no-audit --no-fund --loglevel=error
    cp scripts/console/package-lock.json "$INSTALLED/installed.json"
fi

if [ -z "${TOKEN:-}" ] && { demands_tokens natively || demands_tokens in_docker; }; then TOKEN=$(scripts/token.sh); fi
export CONSOLE_URL INSTALLED SCREENSHOTS CHROMIUM TOKEN=${TOKEN:-}
mkdir -p "$SCREENSHOTS"
[ -n "$picture" ] || rm -f "$SCREENSHOTS"/*.png
[ -n "$picture" ] || echo "Screenshots are written to $SCREENSHOTS."
NO_PROXY='*' no_proxy='*' exec node scripts/console/check.mjs ${picture:+"$picture"}
