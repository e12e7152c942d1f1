#!/usr/bin/env bash
# Builds stand-ins for the images named in .env, from Debian packages, for machines that cannot reach an image registry.
#
#   docker/standin/build.sh                  all that are missing or out of date, but those of observability
#   docker/standin/build.sh observability    those of docker-compose.observability.yml that Debian has: not Grafana, Jaeger and pgAdmin
#   docker/standin/build.sh remove           removes the stand-ins (real images under the same names are never touched)
#
# Needs: root (debootstrap), debootstrap, curl, a Docker engine, and Rust for the image of that name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/settings.sh
. ../../scripts/settings.sh
# shellcheck source=scripts/docker_engine.sh
. ../../scripts/docker_engine.sh

SUITE=trixie
MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
NPM_REGISTRY=${NPM_REGISTRY:-https://registry.npmjs.org}
VARIABLES=(POSTGRES_IMAGE RABBITMQ_IMAGE FLUENTD_IMAGE HAPROXY_IMAGE RUST_IMAGE)
OBSERVABILITY=(PROMETHEUS_IMAGE ALERTMANAGER_IMAGE POSTGRES_EXPORTER_IMAGE)
ROOT_IMAGE=pydist/standin-root:$SUITE
LABEL=pydist.standin # its value: the hash of what the image was built from

# name in npm, version, sha512 in base64: the packages of the log server, which have no other dependencies.
NPM_PACKAGES=(
    "@fluent-org/logger 1.0.10 7gWfwknDWlcvh92sbUGj1pbGyKwkprfNH2ZuFTgCBQLQmcexvFEYh70z69S/TLnQ6z9sqpgfT/gyHrudBqRtZg=="
    "@msgpack/msgpack 2.7.2 rYEi46+gIzufyYUAoHDnRzkWGxajpD9vVXFQ3g1vbjrBm6P7MBmm+s/fqPa46sxa+8FOUdEuRQKaugo5a4JWpw=="
)

say() { echo "standin: $*"; }
fail() {
    echo "standin: $*" >&2
    exit 1
}

image_name() {
    local name
    name=$(setting "$1")
    [ -n "$name" ] || fail "$1 is not set in .env"
    echo "$name"
}

# Prints the label of image $1: empty for a real image; fails where there is none.
standin_label() { docker image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$1" 2>/dev/null; }

# True where image $1 needs no build for the hash $2.
up_to_date() {
    local label
    label=$(standin_label "$1") || return 1
    if [ -z "$label" ] || [ "$label" = '<no value>' ]; then
        say "$1: a real image is here, kept"
        return 0
    fi
    [ "$label" = "$2" ] && say "$1: up to date"
}

hash_of() { cat "$@" | sha256sum | cut -c1-16; }

build_root() {
    local hash work start=$SECONDS
    hash=$(printf '%s' "$SUITE" | sha256sum | cut -c1-16)
    up_to_date "$ROOT_IMAGE" "$hash" && return
    [ "$(id -u)" -eq 0 ] || fail "debootstrap needs root: run this script as root or with sudo."
    command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
    [ -e "/usr/share/debootstrap/scripts/$SUITE" ] || fail "this debootstrap does not know Debian $SUITE: it needs a newer one."
    say "$ROOT_IMAGE: debootstrap of Debian $SUITE"
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of now
    trap "rm -rf '$work'" EXIT
    debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$work/root" "$MIRROR" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        fail "debootstrap failed: the end of its log is above."
    }
    # Packages must not start their servers while they are installed.
    printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d"
    chmod 755 "$work/root/usr/sbin/policy-rc.d"
    printf 'path-exclude=/usr/share/%s/*\n' doc man locale >"$work/root/etc/dpkg/dpkg.cfg.d/slim"
    tar -C "$work/root" --numeric-owner \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
        --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' \
        -c . | docker import --change "LABEL $LABEL=$hash" --change 'CMD ["bash"]' --change 'ENV DEBIAN_FRONTEND=noninteractive' - "$ROOT_IMAGE" >/dev/null
    rm -rf "$work"
    trap - EXIT
    say "$ROOT_IMAGE: built in $((SECONDS - start)) s"
}

# build IMAGE HASH: builds from the tar of a context on standard input.
build() {
    local start=$SECONDS
    say "$1: building"
    docker build --force-rm --quiet --build-arg "ROOT_IMAGE=$ROOT_IMAGE" --label "$LABEL=$2" --tag "$1" - >/dev/null || fail "$1 could not be built."
    say "$1: built in $((SECONDS - start)) s"
}

# build_directory VARIABLE DIRECTORY: an image whose whole context is its directory.
build_directory() {
    local image hash
    image=$(image_name "$1")
    hash=$(hash_of "$2"/* <(echo "$SUITE"))
    up_to_date "$image" "$hash" && return
    tar -C "$2" -c . | build "$image" "$hash"
}

# Puts the npm packages, checked against their hashes, into $1/node_modules.
fetch_npm_packages() {
    local name version sha512 package
    for package in "${NPM_PACKAGES[@]}"; do
        read -r name version sha512 <<<"$package"
        curl -fsS --retry 3 -o "$1/package.tgz" "$NPM_REGISTRY/$name/-/${name##*/}-$version.tgz" || fail "npm's $name cannot be fetched from $NPM_REGISTRY."
        [ "$(openssl dgst -sha512 -binary "$1/package.tgz" | base64 -w0)" = "$sha512" ] || fail "npm's $name $version is not what it was: its hash differs."
        mkdir -p "$1/node_modules/$name"
        tar -C "$1/node_modules/$name" --strip-components=1 -xzf "$1/package.tgz"
    done
    rm "$1/package.tgz"
}

build_log() {
    local image hash work
    image=$(image_name FLUENTD_IMAGE)
    hash=$(hash_of log/* build.sh)
    up_to_date "$image" "$hash" && return
    work=$(mktemp -d)
    cp log/* "$work"
    fetch_npm_packages "$work"
    tar -C "$work" -c . | build "$image" "$hash"
    rm -rf "$work"
}

build_rust() {
    local image hash sysroot host work
    image=$(image_name RUST_IMAGE)
    # Asked in the repository: rust-toolchain.toml chooses the toolchain.
    command -v rustc >/dev/null || fail "Rust is missing on this machine: $image is made from the host's toolchain."
    hash=$(hash_of rust/* build.sh <(rustc -vV))
    up_to_date "$image" "$hash" && return
    sysroot=$(rustc --print sysroot)
    host=$(rustc -vV | sed -n 's/^host: //p')
    work=$(mktemp -d)
    cp rust/Dockerfile "$work"
    (cd "$sysroot" && tar -c bin/cargo bin/rustc "lib/rustlib/$host" lib/*.so*) | tar -C "$work" -x
    tar -C "$work" -c . | build "$image" "$hash"
    rm -rf "$work"
}

# refuse_digests VARIABLE...: an image that is named by its digest is here, or it is none that can be built.
refuse_digests() {
    local variable image
    for variable; do
        image=$(image_name "$variable")
        [[ $image != *@* ]] || standin_label "$image" >/dev/null ||
            fail "$variable is $image: only a registry has the image of a digest. For a stand-in, leave the digest out."
    done
}

remove() {
    local variable image label
    for variable in "${VARIABLES[@]}" "${OBSERVABILITY[@]}"; do
        image=$(image_name "$variable")
        label=$(standin_label "$image") || continue
        if [ -n "$label" ] && [ "$label" != '<no value>' ]; then docker image rm "$image"; fi
    done
    docker image rm "$ROOT_IMAGE" 2>/dev/null || true
}

ask_engine
[ -z "$engine_fault" ] || fail "$engine_fault"
case "${1:-all}" in
all)
    refuse_digests "${VARIABLES[@]}"
    build_root
    build_directory POSTGRES_IMAGE postgres
    build_directory RABBITMQ_IMAGE rabbitmq
    build_directory HAPROXY_IMAGE haproxy
    build_log
    build_rust
    say "all stand-ins are there"
    ;;
observability)
    refuse_digests "${OBSERVABILITY[@]}"
    build_root
    build_directory PROMETHEUS_IMAGE prometheus
    build_directory ALERTMANAGER_IMAGE alertmanager
    build_directory POSTGRES_EXPORTER_IMAGE postgres_exporter
    say "the stand-ins for observability are there"
    ;;
remove) remove ;;
*) fail "usage: $0 [all | observability | remove]" ;;
esac
