#!/usr/bin/env bash
# Builds the run images, pydist/<service>, from the sources on top of pydist/base: one compilation of the workspace's own crates.
#
#   ./build_run_images.sh                    all of docker/services/
#   ./build_run_images.sh btc_price ...      these alone
#
# Brings pydist/base up to date first when the dependencies have changed (see build_base_images.sh for EXTRA_CA_BUNDLE).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

export BASE_IMAGE=${BASE_IMAGE:-pydist/base}

say() { echo "run images: $*"; }
fail() {
    echo "run images: $*" >&2
    exit 1
}

services=("$@")
if [ ${#services[@]} -eq 0 ]; then
    for dockerfile in docker/services/*/Dockerfile; do services+=("$(basename "$(dirname "$dockerfile")")"); done
fi

./build_base_images.sh
for service in "${services[@]}"; do
    [ -e "docker/services/$service/Dockerfile" ] || fail "there is no service '$service' under docker/services/"
    say "building pydist/$service"
    # BuildKit does not follow a link out of the folder of the Dockerfile.
    docker build --force-rm --file "$(readlink -f "docker/services/$service/Dockerfile")" \
        --build-arg "BASE_IMAGE=$BASE_IMAGE" --build-arg "SERVICE=$service" --tag "pydist/$service" . ||
        fail "pydist/$service could not be built: see above."
done
say "built ${services[*]} in $SECONDS s"
