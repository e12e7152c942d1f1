#!/usr/bin/env bash
# Builds the run images, pydist/<service>, from the sources on top of pydist/base: one compilation of the workspace's own crates.
# Does nothing while the sources are unchanged.
#
#   ./build_run_images.sh                    all of docker/services/
#   ./build_run_images.sh btc_price ...      these alone
#   ./build_run_images.sh --check            builds nothing: succeeds if all are up to date
#
# Brings pydist/base up to date first when the dependencies have changed (see build_base_images.sh for EXTRA_CA_BUNDLE).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/settings.sh
. scripts/settings.sh
# shellcheck source=scripts/image_labels.sh
. scripts/image_labels.sh

export BASE_IMAGE=${BASE_IMAGE:-pydist/base}
LABEL=pydist.inputs # its value: the hash of what the image was built from

say() { echo "run images: $*"; }
fail() {
    echo "run images: $*" >&2
    exit 1
}

check=
if [ "${1:-}" = --check ]; then check=1 && shift; fi
services=("$@")
if [ ${#services[@]} -eq 0 ]; then
    for dockerfile in docker/services/*/Dockerfile; do services+=("$(basename "$(dirname "$dockerfile")")"); done
fi
for service in ${services[@]+"${services[@]}"}; do
    [ -e "docker/services/$service/Dockerfile" ] || fail "there is no service '$service' under docker/services/"
done

# What the images are made from: the sources that .dockerignore lets through, and the inputs of pydist/base.
inputs() {
    find Cargo.toml Cargo.lock crates migrations docs/operations.md -type f -not -path 'crates/*/tests/*' -not -path 'crates/bench/*' -not -path 'crates/faults/*' -not -path 'crates/fuzz/*' -not -path 'crates/new_service/*' -exec "${SHA256[@]}" {} + | LC_ALL=C sort
    cat .dockerignore docker/services/Dockerfile
    setting RUST_IMAGE
}
hash=$(inputs | short_hash)
stale=()
for service in ${services[@]+"${services[@]}"}; do
    label=$(docker image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "pydist/$service" 2>/dev/null || true)
    [ "$label" = "$hash" ] || stale+=("$service")
done
if [ -n "$check" ]; then
    [ ${#stale[@]} -eq 0 ]
    exit
fi
if [ ${#stale[@]} -eq 0 ]; then
    say "up to date: ${services[*]}"
    exit
fi

./build_base_images.sh
for service in ${stale[@]+"${stale[@]}"}; do
    say "building pydist/$service"
    crate=crates/$service
    [ -d "$crate" ] || crate=crates/cluster # has the simulator and the issuer
    image_labels "pydist/$service" "$crate"
    dockerfile=docker/services/$service/Dockerfile
    # BuildKit does not follow a link out of the Dockerfile's folder.
    [ ! -L "$dockerfile" ] || dockerfile=docker/services/Dockerfile
    docker build --force-rm --file "$dockerfile" --label "$LABEL=$hash" ${labels[@]+"${labels[@]}"} \
        --build-arg "RUST_IMAGE=$(setting RUST_IMAGE)" --build-arg "BASE_IMAGE=$BASE_IMAGE" --build-arg "SERVICE=$service" --tag "pydist/$service" . ||
        fail "pydist/$service could not be built: see above."
done
say "built ${stale[*]} in $SECONDS s"
