#!/usr/bin/env bash
# The docker suite, on a working engine: images, then the cluster under compose (crates/cluster/tests/compose). Called by ./test.sh docker.
#
# EXTRA_CA_BUNDLE: see build_base_images.sh. Uses its own host ports and compose project, so a cluster may run beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/settings.sh
. scripts/settings.sh

REGISTRY=https://registry-1.docker.io/v2/
PULL_LIMIT_S=180
IMAGES=(POSTGRES_IMAGE RABBITMQ_IMAGE FLUENTD_IMAGE HAPROXY_IMAGE RUST_IMAGE)
CHANGED_SERVICE=fetch_buy_orders
DEVELOPMENT=(-f docker-compose.yml -f docker-compose.override.yml -f docker-compose.simulator.yml -f docker-compose.auth.yml)
PRODUCTION=(-f docker-compose.yml -f docker-compose.production.yml)

say() { echo "docker suite: $*"; }
fail() {
    echo "docker suite: $*" >&2
    exit 1
}

work=$(mktemp -d)
export COMPOSE_TEST_PROJECT=pydist_test_$$
changed_image=pydist/changed:$$

# The test removes its own project, unless it is killed.
clear_up() {
    rm -rf "$work"
    docker image rm "$changed_image" >/dev/null 2>&1 || true
    remove_project "$COMPOSE_TEST_PROJECT" "${DEVELOPMENT[@]}"
    remove_project "${COMPOSE_TEST_PROJECT}_production" "${PRODUCTION[@]}"
}

# remove_project NAME FILE...: if it has containers.
remove_project() {
    local project=$1
    shift
    [ -n "$(docker ps --all --quiet --filter "label=com.docker.compose.project=$project")" ] || return 0
    scripts/compose.sh "$@" -p "$project" down --volumes --remove-orphans
}
trap clear_up EXIT

here() { docker image inspect "$1" >/dev/null 2>&1; }

# Any status is an answer: without a login the registry says 401.
registry_answers() { curl --silent --max-time 5 --output /dev/null "$REGISTRY"; }

is_standin() { [ -n "$(docker image inspect --format '{{with .Config.Labels}}{{index . "pydist.standin"}}{{end}}' "$1" 2>/dev/null)" ]; }

# Missing images of .env are pulled. If no registry answers, stand-ins are built under their names. Stand-ins of an older tree are
# built again.
images_of_env() {
    local name image missing=() standins=()
    for name in "${IMAGES[@]}"; do
        image=$(setting "$name")
        here "$image" || missing+=("$image")
        if is_standin "$image"; then standins+=("$image"); fi
    done
    if [ ${#missing[@]} -eq 0 ]; then
        [ ${#standins[@]} -eq 0 ] || docker/standin/build.sh
        return
    fi
    if registry_answers; then
        for image in "${missing[@]}"; do
            say "pulling $image"
            timeout "$PULL_LIMIT_S" docker pull --quiet "$image" || say "$image cannot be pulled"
        done
    else
        say "no image registry answers at $REGISTRY"
    fi
    for image in "${missing[@]}"; do
        here "$image" && continue
        docker/standin/build.sh
        return
    done
}

# compiled LOG: the crates that cargo compiled, according to a build's output. The classic builder colours lines; BuildKit numbers them.
compiled() { sed -nE 's/\x1b\[[0-9;]*m//g; s/^(#[0-9]+ [0-9.]+ )? *Compiling ([^ ]+) v.*/\2/p' "$1" | sort -u; }

# A changed line in one service must recompile that service and no dependency. The change is made in a copy.
a_changed_line_compiles_no_dependency() {
    local ours compiled foreign
    mkdir "$work/copy"
    cp -R .dockerignore Cargo.toml Cargo.lock crates migrations "$work/copy"
    mkdir "$work/copy/docs"
    cp docs/operations.md "$work/copy/docs"
    # A text that no earlier build has seen, so that nothing comes from a cache.
    date '+// %s%N' >>"$work/copy/crates/$CHANGED_SERVICE/src/lib.rs"
    BUILDKIT_PROGRESS=plain docker build --force-rm --build-arg "RUST_IMAGE=$(setting RUST_IMAGE)" --build-arg BASE_IMAGE=pydist/base --target build --file docker/services/Dockerfile --tag "$changed_image" "$work/copy" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2 && fail "the images cannot be built after a changed line in $CHANGED_SERVICE"; }
    compiled=$(compiled "$work/log")
    ours=$(sed -n 's/^name = "\(.*\)"$/\1/p' crates/*/Cargo.toml | sort -u)
    foreign=$(comm -23 <(echo "$compiled") <(echo "$ours"))
    [ -z "$foreign" ] || fail "a changed line in $CHANGED_SERVICE compiles dependencies, which the base image should hold: $(echo "$foreign" | tr '\n' ' ')"
    grep -qx "$CHANGED_SERVICE" <<<"$compiled" || fail "a changed line in $CHANGED_SERVICE does not compile it: the images would hold old code"
    say "a changed line compiles $(wc -l <<<"$compiled") crates of ours and no dependency"
}

# The suite itself runs with one of the two Compose versions.
every_compose_takes_the_files() {
    local compose files
    for compose in "docker compose" docker-compose; do
        $compose version >/dev/null 2>&1 || continue
        for files in "${DEVELOPMENT[*]}" "${DEVELOPMENT[*]} -f docker-compose.observability.yml" "${PRODUCTION[*]}"; do
            # shellcheck disable=SC2086 # words
            $compose $files config --quiet || fail "$compose does not take the files: $files"
        done
        say "$compose takes the files"
    done
}

# A reference with a digest must reach the engine as it is, and is no name for a stand-in. The digest of this test is of no image.
a_digest_reaches_the_engine() {
    local name digest said
    digest=image.invalid/name:tag@sha256:$(sha256sum </dev/null | cut -d ' ' -f 1)
    for name in "${IMAGES[@]}"; do
        if [ "$name" = RUST_IMAGE ]; then
            said=$(BASE_IMAGE=pydist/none RUST_IMAGE=$digest ./build_base_images.sh 2>&1) && fail "pydist/base was built on no image"
            [[ $said == *"pulling $digest"* && $said != *"invalid reference"* ]] || fail "a digest in $name: $said"
        else
            said=$(env "$name=$digest" scripts/compose.sh -f docker-compose.yml config)
            grep -qF "image: $digest" <<<"$said" || fail "a digest in $name does not reach docker-compose.yml"
        fi
    done
    said=$(HAPROXY_IMAGE=$digest docker/standin/build.sh 2>&1) && fail "a stand-in was built under a digest"
    [[ $said == *"leave the digest out"* ]] || fail "a digest for a stand-in: $said"
    say "digests reach the engine"
}

images_of_env
a_digest_reaches_the_engine
every_compose_takes_the_files
./build_run_images.sh
./build_run_images.sh --check || fail "the run images are out of date right after they were built"
a_changed_line_compiles_no_dependency

cargo test --release --workspace --features cluster/compose --test compose -- --test-threads=1 --nocapture
