#!/bin/sh
# Makes sure that Rust can compile to wasm32-unknown-unknown. Does nothing if it can.
set -eu

target=wasm32-unknown-unknown

# Works for a compiler from rustup and for any other.
has_target() {
    libraries=$(rustc --print target-libdir --target "$target" 2>/dev/null) || return 1
    for library in "$libraries"/libcore-*.rlib; do
        [ -e "$library" ] && return 0
    done
    return 1
}

fail() {
    echo "wasm/setup.sh: $1" >&2
    exit 1
}

command -v rustc >/dev/null || fail "there is no rustc; install Rust from https://rustup.rs"
if has_target; then
    exit 0
fi
command -v rustup >/dev/null ||
    fail "this Rust has no standard library for $target and no rustup to add it: install Rust from https://rustup.rs, then run 'rustup target add $target'"
echo "adding the target $target" >&2
# rustup may hang on a bad network.
timeout 120 rustup target add "$target" >&2 ||
    fail "'rustup target add $target' failed or took more than 120 s: run it by hand, then try again"
has_target || fail "$target was added, but this rustc does not find it: $(command -v rustc)"
