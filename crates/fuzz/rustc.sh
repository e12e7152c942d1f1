#!/bin/sh
# Compiles a crate of the workspace for fuzzing: cargo calls this as RUSTC_WORKSPACE_WRAPPER, with the compiler's whole command. Crates of
# others are compiled as always, so that they are shared with the normal build. Their generic functions are instrumented where we use them.
case " $* " in
*" --crate-name build_script_"* | *" --crate-type proc-macro "*) exec "$@" ;;
esac
exec "$@" \
    -C passes=sancov-module \
    -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
    -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares \
    -C opt-level=1 -C codegen-units=16 -C debug-assertions=on -C strip=none
