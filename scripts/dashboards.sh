#!/usr/bin/env bash
# Makes the dashboards of Grafana, docker/grafana/dashboards/*.json, from the Python in dashboards/, after mypy has checked its types.
#
#   scripts/dashboards.sh            writes them
#   scripts/dashboards.sh --check    fails if they are not what dashboards/ makes; with the types of scripts/check_observability.py. For CI
#
# Needs Python 3.10 or later. grafana-foundation-sdk and mypy are installed into a folder of their own below target/, from PyPI, once.
set -euo pipefail
case "${1:-}" in
'' | --check) ;;
*) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MADE=docker/grafana/dashboards
requirements=dashboards/requirements.txt
installed=${CARGO_TARGET_DIR:-target}/dashboards
if ! cmp --quiet "$requirements" "$installed/requirements.txt"; then
    rm -rf "$installed"
    python3 -m venv "$installed"
    # Behind a proxy that inspects TLS, pip must trust the host's certificates.
    PIP_CERT=${PIP_CERT:-${SSL_CERT_FILE:-}} "$installed/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$installed/requirements.txt"
fi

MYPYPATH=dashboards "$installed/bin/mypy" --strict --no-error-summary --cache-dir "$installed/mypy" dashboards/*.py scripts/check_observability.py
# -B: no compiled files beside the sources.
if [ -z "${1:-}" ]; then
    rm -f "$MADE"/*.json
    "$installed/bin/python" -B dashboards/generate.py "$MADE"
    exit
fi
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$installed/bin/python" -B dashboards/generate.py "$fresh"
diff --recursive --unified=1 "$MADE" "$fresh" || {
    echo "dashboards: $MADE is not what dashboards/ makes: scripts/dashboards.sh writes it" >&2
    exit 1
}
echo "dashboards: $(find "$fresh" -name '*.json' | wc -l) are up to date"
