#!/usr/bin/env bash
# Checks services against their OpenAPI documents, with all checks of schemathesis (scripts/schemathesis/):
#
#   ORDER_POSITION=... scripts/check_openapi.sh http://127.0.0.1:8777/openapi.json...
#
# ORDER_POSITION is what these services answered an accepted order in the header Order-Position.
#
# It sends requests that the document allows and others that it forbids, follows its links and checks each answer: some hundred requests
# per document, the same in each run. The orders that it places stay. Needs Python 3.10 or later; schemathesis is installed into
# a folder of its own below target/, from PyPI, once.
set -euo pipefail
if [ $# = 0 ] || [ -z "${ORDER_POSITION:-}" ]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

requirements=scripts/schemathesis/requirements.txt
installed=${CARGO_TARGET_DIR:-target}/schemathesis
if ! cmp --quiet "$requirements" "$installed/requirements.txt"; then
    rm -rf "$installed"
    python3 -m venv "$installed"
    # Behind a proxy that inspects TLS, pip must trust the host's certificates.
    PIP_CERT=${PIP_CERT:-${SSL_CERT_FILE:-}} "$installed/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$installed/requirements.txt"
fi

export HYPOTHESIS_STORAGE_DIRECTORY=$PWD/$installed/hypothesis
[[ $installed != /* ]] || HYPOTHESIS_STORAGE_DIRECTORY=$installed/hypothesis
failed=0
for document in "$@"; do
    NO_PROXY='*' "$installed/bin/schemathesis" --no-color --config-file scripts/schemathesis/schemathesis.toml \
        run "$document" || failed=1
done
exit "$failed"
