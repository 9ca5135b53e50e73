#!/bin/sh
# Runs all tests. Needs Rust 1.95 or later with rustfmt and clippy, a C compiler, Node.js 20.19 or
# later, npm, Chromium, Firefox, WebKitGTK's driver and Xvfb.
#
# Native code is built in the release profile only, so that dependencies are compiled once.
set -eu
cd "$(dirname "$0")/.."

started=$(date +%s)
step=
finish() {
    code=$?
    if [ "$code" -ne 0 ]; then
        echo "==> failed: $step" >&2
    fi
    exit "$code"
}
trap finish EXIT

announce() {
    step=$1
    echo "==> $(date +%H:%M:%S), after $(($(date +%s) - started)) s: $step"
}

announce "tools"
node -e '
    const [major, minor] = process.versions.node.split(".").map(Number)
    process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)
' || { echo "Node.js 20.19 or later is needed" >&2; exit 1; }

announce "format"
cargo fmt --all --check

announce "lints"
cargo clippy --release --workspace --all-targets --locked -- -D warnings

announce "the core without features links no shell"
tree=$(cargo tree --package reconverge --edges normal --prefix none --locked)
if echo "$tree" | grep -E '^(tokio|redb|futures|uuid)[a-z-]* v'; then
    echo "the crates above must come with the feature native only" >&2
    exit 1
fi

# Packages are not installed by "npm ci": it refuses a lock file that leaves out the optional
# builds of other platforms, which some registries do not carry. The lock file pins all the same.
install_packages() {
    npm install --no-save --no-fund --no-audit
}

announce "the client without the relay for tests"
cargo check --release --package reconverge --features native --locked

announce "npm package"
(
    cd wasm
    install_packages
    npm run build
    npm run size
    npm test
)

announce "demo"
(
    cd examples/demo
    install_packages
    npm run check
    npm run build
)

announce "board"
(
    cd examples/board
    install_packages
    npm run build
)

# After the demo, which the relay has in it.
announce "build"
cargo build --release --workspace --locked

announce "documentation"
kept=$(mktemp -d)
cp -R docs/api "$kept"
(cd wasm && npm run docs)
if ! diff -r "$kept/api" docs/api; then
    echo "docs/api was not what the sources say; it is now: commit it" >&2
    exit 1
fi
rm -r "$kept"
# The binary has the name of the core; its pages would take the place of the core's.
RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --lib --no-deps --locked

announce "tests in Rust"
cargo test --release --workspace --locked

announce "planted bugs are caught"
cargo test --release --workspace --locked --features reconverge-tests/planted --test sim
cargo test --release --workspace --locked --features reconverge-tests/planted --test damage planted
cargo test --release --workspace --locked --features reconverge-tests/planted --test hostile_sessions planted

announce "stock clients in Node.js"
(
    cd tests/interop
    install_packages
    npm test
)

announce "examples"
sh examples/run.sh

announce "browser"
(
    cd tests/browser
    install_packages
    npm test
)

announce "package in bundlers and Node.js"
(
    cd tests/package
    install_packages
    npm test
)

announce "all passed"
