//! What the relay answers to browsers: its own page, and with `--demo` the demo.
//!
//! A binary that was built without the demo's files refuses the flag; then only that is tested.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use reconverge_tests::process::{Relay, relay_executable};
use reconverge_tests::socket::address_of;

struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn get(relay: &Relay, path: &str, headers: &str) -> Answer {
    let url = relay.url();
    let address = address_of(&url);
    let mut stream = TcpStream::connect(address).unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().to_owned();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    }
}

/// Whether the relay under test has the demo. One that has not says what to do.
fn has_demo() -> bool {
    let folder = tempfile::tempdir().unwrap();
    // An address that nobody can listen on: with the demo, the relay gets as far as that.
    let ended = Command::new(relay_executable())
        .args(["serve", "--demo", "--listen", "192.0.2.1:1", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    let without = said.contains("built without the demo");
    assert_eq!(without, said.contains("npm run build"), "{said}");
    !without
}

#[test]
fn without_the_flag_there_is_no_demo() {
    let relay = Relay::start();
    let page = get(&relay, "/", "");
    assert_eq!(page.status, "HTTP/1.1 200 OK");
    assert_eq!(
        page.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(page.body.starts_with(b"Reconverge relay"));
    assert_eq!(get(&relay, "/main.js", "").status, "HTTP/1.1 404 Not Found");
}

#[test]
fn with_the_flag_the_demo_is_served() {
    if !has_demo() {
        eprintln!("skipped: the relay was built without the demo");
        return;
    }
    let relay = Relay::start_with(&["--demo"]);
    let page = get(&relay, "/", "");
    assert_eq!(page.status, "HTTP/1.1 200 OK");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.body.starts_with(b"<!doctype html>"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'"));

    // What the page names is there.
    for (path, kind) in [
        ("/main.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/core/reconverge_bg.wasm", "application/wasm"),
    ] {
        let file = get(&relay, path, "");
        assert_eq!(file.status, "HTTP/1.1 200 OK", "{path}");
        assert_eq!(file.header("content-type"), Some(kind), "{path}");
        assert_eq!(file.header("content-encoding"), None, "{path}");
        for encoding in ["br", "gzip"] {
            let small = get(&relay, path, &format!("accept-encoding: {encoding}\r\n"));
            assert_eq!(small.header("content-encoding"), Some(encoding), "{path}");
            assert!(small.body.len() < file.body.len(), "{path}");
        }
    }

    // A browser that has it is told so.
    let etag = page.header("etag").unwrap();
    let again = get(&relay, "/", &format!("if-none-match: {etag}\r\n"));
    assert_eq!(again.status, "HTTP/1.1 304 Not Modified");
    assert!(again.body.is_empty());

    // The pages for probes are where they were, and nothing else is there.
    assert_eq!(get(&relay, "/healthz", "").body, b"ok\n");
    assert_eq!(
        get(&relay, "/../Cargo.toml", "").status,
        "HTTP/1.1 404 Not Found"
    );
}
