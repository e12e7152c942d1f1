#!/usr/bin/env bash
# Builds pydist/base: the Rust toolchain and all compiled dependencies, without our code. Does nothing while the dependencies are unchanged.
#
#   ./build_base_images.sh
#   ./build_base_images.sh --check    builds nothing: succeeds if the image is up to date
#   EXTRA_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt ./build_base_images.sh    behind a proxy that inspects TLS: a PEM bundle that
#                                                      the build trusts when it downloads; it does not reach the run images
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/settings.sh
. scripts/settings.sh
# shellcheck source=scripts/image_labels.sh
. scripts/image_labels.sh
# shellcheck source=scripts/docker_engine.sh
. scripts/docker_engine.sh

IMAGE=${BASE_IMAGE:-pydist/base}
LABEL=pydist.inputs # its value: the hash of what the image was built from

say() { echo "base image: $*"; }
fail() {
    echo "base image: $*" >&2
    exit 1
}

case "${1:-}" in '' | --check) ;; *) fail "unknown argument '$1': --check or none" ;; esac
ask_engine
[ -z "$engine_fault" ] || fail "$engine_fault"
RUST_IMAGE=$(setting RUST_IMAGE)
[ -n "$RUST_IMAGE" ] || fail "RUST_IMAGE is set neither in the environment nor in .env"

# What decides which dependencies are compiled and how: the locked packages, the profile and the crates' dependencies. The names of our own
# crates and their uses of each other do not count: a new service with known dependencies needs no new base.
inputs() {
    local members
    members=$(printf '%s\n' crates/*/Cargo.toml | sed -E 's|crates/(.*)/Cargo.toml|\1|' | paste -sd '|' -)
    awk 'BEGIN { RS = ""; ORS = "\n\n" } /\nsource = /' Cargo.lock
    grep -vE "^($members) *=" Cargo.toml
    # With the section: images do not compile dev-dependencies, so moving a crate to or from them can change the features that are compiled.
    awk '/^\[/ { section = $0 } section ~ /dependencies/ && section !~ /dev-/ && /^[A-Za-z0-9_-]+(\.workspace)? *=/ { print section, $0 }' crates/*/Cargo.toml |
        grep -vE "\] ($members)(\.workspace)? *=" | sort -u
    sed "/^FROM.* AS build$/,\$d" docker/services/Dockerfile
    echo "$RUST_IMAGE"
}
hash=$(inputs | short_hash)
label=$(docker image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$IMAGE" 2>/dev/null || true)
if [ "${1:-}" = --check ]; then
    [ "$label" = "$hash" ]
    exit
fi
if [ "$label" = "$hash" ]; then
    say "$IMAGE is up to date"
    exit
fi

docker image inspect "$RUST_IMAGE" >/dev/null 2>&1 || {
    say "pulling $RUST_IMAGE"
    docker pull "$RUST_IMAGE" || fail "$RUST_IMAGE cannot be pulled. Where no image registry can be reached: docker/standin/build.sh"
}

if [ -n "${EXTRA_CA_BUNDLE:-}" ] && ! cmp -s "$EXTRA_CA_BUNDLE" extra-ca.pem; then
    [ -r "$EXTRA_CA_BUNDLE" ] || fail "EXTRA_CA_BUNDLE names $EXTRA_CA_BUNDLE, which cannot be read."
    [ ! -e extra-ca.pem ] || fail "EXTRA_CA_BUNDLE is set, and the file extra-ca.pem has other certificates: remove one of them."
    trap 'rm -f extra-ca.pem' EXIT
    cp "$EXTRA_CA_BUNDLE" extra-ca.pem
fi

say "building $IMAGE on $RUST_IMAGE: compiles every dependency once, which takes some minutes"
image_labels "$IMAGE" crates/common
docker build --force-rm --target base --file docker/services/Dockerfile --build-arg "RUST_IMAGE=$RUST_IMAGE" \
    --label "$LABEL=$hash" ${labels[@]+"${labels[@]}"} --tag "$IMAGE" . ||
    fail "the build failed: see above. 'certificate' in its message: see EXTRA_CA_BUNDLE at the top of $0."
say "$IMAGE is built, in $SECONDS s"
