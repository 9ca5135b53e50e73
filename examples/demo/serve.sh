#!/bin/sh
# Builds the npm package, the demo and the relay, and starts the relay with the demo. Arguments go
# to `reconverge serve`.
set -eu
cd "$(dirname "$0")/../.."

# Not "npm ci", for the reason given in tests/run.sh.
for folder in wasm examples/demo; do
    (
        cd "$folder"
        npm install --no-save --no-fund --no-audit
        npm run build
    )
done
exec cargo run --release --locked --package reconverge-server -- serve --demo "$@"
