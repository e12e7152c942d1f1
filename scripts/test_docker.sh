#!/usr/bin/env bash
# The docker suite, on an engine that answers: images, then the cluster under compose (crates/cluster/tests/compose). Called by ./test.sh docker.
#
# EXTRA_CA_BUNDLE: see build_base_images.sh. Uses host ports and a compose project of its own, next to a cluster that runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

REGISTRY=https://registry-1.docker.io/v2/
PULL_LIMIT_S=180

say() { echo "docker suite: $*"; }
fail() {
    echo "docker suite: $*" >&2
    exit 1
}

work=$(mktemp -d)
export COMPOSE_TEST_PROJECT=pydist_test_$$

# The test removes its project itself, unless it is killed.
clear_up() {
    rm -rf "$work"
    if [ -n "$(docker ps --all --quiet --filter "label=com.docker.compose.project=$COMPOSE_TEST_PROJECT")" ]; then
        scripts/compose.sh -f docker-compose.yml -f docker-compose.simulator.yml -p "$COMPOSE_TEST_PROJECT" down --volumes --remove-orphans
    fi
}
trap clear_up EXIT

here() { docker image inspect "$1" >/dev/null 2>&1; }

# A status of any kind is an answer: without a login the registry says 401.
registry_answers() { curl --silent --max-time 5 --output /dev/null "$REGISTRY"; }

# Images of .env that are missing are pulled, or, where no registry answers, stand-ins are built under their names.
images_of_env() {
    local image missing=()
    while read -r image; do here "$image" || missing+=("$image"); done < <(sed -n 's/^[A-Z]*_IMAGE=//p' .env)
    [ ${#missing[@]} -gt 0 ] || return 0
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

# compiled LOG: the crates that cargo compiled, by a build's output. The classic builder colours lines, BuildKit numbers them.
compiled() { sed -nE 's/\x1b\[[0-9;]*m//g; s/^(#[0-9]+ [0-9.]+ )? *Compiling ([^ ]+) v.*/\2/p' "$1" | sort -u; }

# A change of code alone must compile no dependency again: what cargo compiles in the run images is ours.
only_our_own_crates() {
    local ours foreign
    ours=$(sed -n 's/^name = "\(.*\)"$/\1/p' crates/*/Cargo.toml | sort -u)
    foreign=$(comm -23 <(compiled "$1") <(echo "$ours"))
    [ -z "$foreign" ] || fail "building the run images compiled dependencies, which the base image should hold: $(echo "$foreign" | tr '\n' ' ')"
    say "the run images compiled $(compiled "$1" | wc -l) crates of ours and no dependency"
}

images_of_env
./build_base_images.sh
BUILDKIT_PROGRESS=plain ./build_run_images.sh 2>&1 | tee "$work/build.log"
only_our_own_crates "$work/build.log"

cargo test --release --workspace --features cluster/compose --test compose -- --test-threads=1 --nocapture
