//! Aim: whatever peers send, the log stays small, says what it left out, and goes on to tell what
//! an operator must know.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::path::PathBuf;

use reconverge::id::PEER_ID_BYTES_MAX;
use reconverge::protocol::{self, Message, PeerMetadata};
use reconverge_tests::process::Relay;
use reconverge_tests::socket::{Socket, binary};

/// Connections that join and go, on so many tasks.
const JOINS: usize = 8_000;
const TASKS: usize = 16;

/// What may be logged in a minute, as `--log-kib-per-minute` says by default; and what is told of
/// what was left out.
const LOG_BYTES_MAX: usize = 768 * 1024 + 16 * 1024;

/// Joins under a name and sends a frame that is none.
async fn offends(url: &str, name: &str) {
    let mut socket = Socket::open(url, name).await;
    let join = protocol::encode(&Message::Join {
        sender: name,
        metadata: PeerMetadata::default(),
        speaks_v1: true,
    });
    let frames = vec![binary(join), binary(b"no message".to_vec())];
    socket.send(frames).await;
    socket.closed().await;
}

/// What the relay has logged when so many have offended, and it has ended.
async fn log_of_a_flood(format: &str) -> String {
    let mut relay = Relay::start_with(&["--log-format", format]);
    let tasks = (0..TASKS).map(|task| {
        let url = relay.url();
        tokio::spawn(async move {
            for n in 0..JOINS / TASKS {
                // As long as a name may be, and with what turns round the text that follows.
                let name = format!("\u{202e}{task}-{n}-");
                let rest = PEER_ID_BYTES_MAX - name.len();
                offends(&url, &(name + &"x".repeat(rest))).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let path: PathBuf = relay.log_path();
    assert!(relay.terminate().unwrap().success());
    std::fs::read_to_string(path).unwrap()
}

fn check(log: &str, left_out: impl Fn(&str) -> u64) {
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count() as u64;
    let (joined, offences) = (count("joined"), count("bad frame; connection closed"));
    println!("{} bytes, {joined} joined, {offences} offences", log.len());
    assert!(log.len() < LOG_BYTES_MAX, "{} bytes", log.len());
    // What ended a connection is said of each that had joined.
    let closed = log.lines();
    let closed = closed.filter(|line| line.contains("code=1002") || line.contains("\"code\":1002"));
    let closed = closed.count() as u64;
    assert!(joined > 100 && offences > 100 && closed > 100);
    assert!(!log.contains('\u{202e}'));
    let told = log.lines().filter(|line| line.contains("left out"));
    let told: u64 = told.map(left_out).sum();
    assert_eq!(joined + offences + closed + told, 3 * JOINS as u64);
    // A line of another kind is there, though it came at the very end.
    assert_eq!(count("stopped"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lines_is_cut_and_told() {
    let log = log_of_a_flood("human").await;
    check(&log, |line| {
        let (_, lines) = line.split_once(" lines=").unwrap();
        lines.split(' ').next().unwrap().parse().unwrap()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lines_is_cut_and_told_in_json() {
    let log = log_of_a_flood("json").await;
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["fields"]["message"].is_string(), "{line}");
        assert!(event["level"].is_string() && event["timestamp"].is_string());
    }
    check(&log, |line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["fields"]["lines"].as_u64().unwrap()
    });
}
