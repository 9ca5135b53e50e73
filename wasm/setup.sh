#!/bin/sh
# Makes sure that Rust can compile to wasm32-unknown-unknown: with the standard library that comes
# for it (setup.sh prebuilt), or with one that is compiled from its sources (setup.sh own). Does
# nothing if it can.
set -eu

target=wasm32-unknown-unknown
std=${1:-own}

# Works for a compiler from rustup and for any other.
has_target() {
    libraries=$(rustc --print target-libdir --target "$target" 2>/dev/null) || return 1
    for library in "$libraries"/libcore-*.rlib; do
        [ -e "$library" ] && return 0
    done
    return 1
}

has_sources() {
    [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/std/src/lib.rs" ]
}

fail() {
    echo "wasm/setup.sh: $1" >&2
    exit 1
}

# add <what is looked for> <what it is called in words> <arguments of rustup>
add() {
    looks=$1
    what=$2
    shift 2
    "$looks" && return 0
    command -v rustup >/dev/null ||
        fail "this Rust has no $what and no rustup to add it: install Rust from https://rustup.rs, then run 'rustup $*'$advice"
    echo "adding the $what" >&2
    # rustup may hang on a bad network.
    timeout 180 rustup "$@" >&2 ||
        fail "'rustup $*' failed or took more than 180 s: run it by hand, then try again$advice"
    "$looks" || fail "'rustup $*' was run, but this rustc does not find the $what: $(command -v rustc)"
}

command -v rustc >/dev/null || fail "there is no rustc; install Rust from https://rustup.rs"
case $std in
    own)
        advice="; or set RECONVERGE_WASM_STD=prebuilt, for a module that is a tenth larger"
        add has_sources "sources of the standard library" component add rust-src
        ;;
    prebuilt)
        advice=
        add has_target "standard library for $target" target add "$target"
        ;;
    *) fail "it is told '$std'; it may be 'own' or 'prebuilt'" ;;
esac
