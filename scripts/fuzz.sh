#!/usr/bin/env bash
# Fuzzes the parsers of foreign bytes (crates/fuzz), on stable Rust: scripts/fuzz.sh [--seconds N] [TARGET...]
#
#   TARGET         one or more folders of crates/fuzz/corpus; without one, all of them
#   --seconds N    for each target, 10 by default; as many targets run at a time as there are cores
#
# Needs a C++ compiler. What the fuzzer learns is kept in target/fuzz/corpus, and the next run begins with it. An input that breaks a promise
# is kept in target/fuzz/found, and the run fails: docs/CHANGING.md says what to do with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "fuzz: $*" >&2
    exit 1
}

TARGET_DIR=${CARGO_TARGET_DIR:-target}
export SEEDS=crates/fuzz/corpus FUZZER=$TARGET_DIR/release/fuzz OUT=$TARGET_DIR/fuzz SECONDS_EACH=10
targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds)
        [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "--seconds needs a number"
        SECONDS_EACH=$2
        shift
        ;;
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit
        ;;
    -*) fail "unknown argument '$1': --seconds or --help" ;;
    *)
        [ -d "$SEEDS/$1" ] || fail "there is no target '$1' in $SEEDS"
        targets+=("$1")
        ;;
    esac
    shift
done
if [ ${#targets[@]} -eq 0 ]; then
    for folder in "$SEEDS"/*/; do targets+=("$(basename "$folder")"); done
fi

command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
command -v c++ >/dev/null || fail "libFuzzer needs a C++ compiler: apt-get install g++"
# --workspace: cargo chooses the same features as for the normal build, so the crates of others are not compiled again.
RUSTC_WORKSPACE_WRAPPER=$PWD/crates/fuzz/rustc.sh \
    cargo build --release --locked --workspace --features fuzz/libfuzzer --bin fuzz --quiet

run() {
    local log=$OUT/$1.log
    mkdir -p "$OUT/corpus/$1" "$OUT/found"
    # What the fuzzer generates must not fill the memory, and no input may take long.
    if ! FUZZ_TARGET=$1 "$FUZZER" "$OUT/corpus/$1" "$SEEDS/$1" -max_total_time="$SECONDS_EACH" -timeout=5 -rss_limit_mb=1024 \
        -artifact_prefix="$OUT/found/$1-" >"$log" 2>&1; then
        grep -A 1 -E "panicked|^SUMMARY|Test unit written" "$log" >&2 || tail -n 20 "$log" >&2
        echo "fuzz: $1 broke its promise: see $log. Again: FUZZ_TARGET=$1 $FUZZER $OUT/found/$1-..." >&2
        return 1
    fi
    # The coverage counts edges, with the seeds and at the end.
    sed -nE "s/.*INITED +cov: ([0-9]+).*/\1/p; s/^#([0-9]+)[[:space:]]+DONE +cov: ([0-9]+).*/\1 \2/p" "$log" |
        paste -sd ' ' | while read -r before executions after; do
            printf 'fuzz: %-14s %9d executions, coverage %d -> %d\n' "$1" "$executions" "$before" "$after"
        done
}
export -f run
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'run {}' || fail "failed"
