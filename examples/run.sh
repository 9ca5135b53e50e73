#!/bin/sh
# Runs the examples against a relay of their own. It is killed and started again in between: what
# was written before must be there after.
set -eu
cd "$(dirname "$0")"
relay=../target/release/reconverge
folder=$(mktemp -d)
pid=
checkout=
finish() {
    code=$?
    if [ -n "$checkout" ]; then
        kill "$checkout" 2>/dev/null || true
    fi
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
    fi
    rm -rf "$folder"
    exit "$code"
}
trap finish EXIT

# Waits for a line of this file that begins like this, and prints the rest of it.
await() {
    tries=0
    until line=$(sed -n "s/^$2//p" "$folder/$1") && [ -n "$line" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo "$3" >&2
            exit 1
        fi
        sleep 0.1
    done
    echo "$line"
}

start() {
    : >"$folder/ready"
    "$relay" serve --listen "$1" --data "$folder/data" --log warn >"$folder/ready" &
    pid=$!
    address=$(await ready "listening on " "the relay does not become ready")
}

# Not "npm ci", for the reason given in tests/run.sh.
(cd two-peers && npm install --no-save --no-fund --no-audit)
start 127.0.0.1:0
first=$(cd two-peers && RELAY="ws://$address" node demo.mjs)
url=$(echo "$first" | head -n 1)
kill -9 "$pid"
wait "$pid" 2>/dev/null || true
start "$address"
second=$(cd two-peers && RELAY="ws://$address" node demo.mjs "$url")
echo "$second"
if [ "$(echo "$second" | grep -c '^ann,')" -ne 2 ] || [ "$(echo "$second" | grep -c '^bob,')" -ne 2 ]; then
    echo "lines are missing after kill -9" >&2
    exit 1
fi

binaries=../target/release
said=$(echo "hello" | "$binaries/chat" "ws://$address" ann 2>/dev/null)
url=$(echo "$said" | head -n 1)
kill -9 "$pid"
wait "$pid" 2>/dev/null || true
start "$address"
heard=$(echo "hi" | "$binaries/chat" "ws://$address" bob "$url" 2>/dev/null)
echo "$heard"
if [ "$(echo "$heard" | tail -n 2)" != "ann: hello
bob: hi" ]; then
    echo "the chat lost a line" >&2
    exit 1
fi

"$binaries/checkout" "ws://$address" >"$folder/checkout" &
checkout=$!
order=$(await checkout "automerge:" "there is no order")
node checkout/page.mjs "ws://$address" "automerge:$order"
wait "$checkout"
tail -n 1 "$folder/checkout"
if [ "$(tail -n 1 "$folder/checkout")" != 'ordered {"lamp": 2}, reserved {"lamp": 2}, 4000 cents due' ]; then
    echo "the services and the page do not agree" >&2
    exit 1
fi

"$binaries/services" "$address" | tee "$folder/services"
tail -n 1 "$folder/services" | grep -q "all three agree"
