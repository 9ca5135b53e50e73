//! What a stock client (automerge-repo in Node.js) sends and receives, with the relay and with
//! automerge-repo's own server.

use std::path::Path;
use std::process::Command;

use crate::Setting;
use crate::report::{Report, Row, thousands};

pub(crate) fn run(setting: &Setting, report: &mut Report) {
    let relay = setting.start_relay();
    let ours = measured(&relay.url());
    let reference = measured("reference");
    for (server, lines) in [("relay", ours), ("automerge-repo's server", reference)] {
        report.check(lines.len() == 3, || {
            format!("{server}: {} of 3 visits", lines.len())
        });
        for (what, up, down) in lines {
            report.row(Row {
                what: format!("30 documents of 20 changes, stock client, {server}: {what}"),
                rate: format!("{} bytes up, {} down", thousands(up), thousands(down)),
                checked: "heads".into(),
                ..Row::default()
            });
        }
    }
}

/// Each visit's name, and bytes up and down.
fn measured(server: &str) -> Vec<(String, u64, u64)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/bytes.js");
    let output = Command::new("node")
        .arg(script)
        .arg(server)
        .output()
        .unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('\t');
            let (what, up, down) = (words.next()?, words.next()?, words.next()?);
            Some((what.to_owned(), up.parse().ok()?, down.parse().ok()?))
        })
        .collect()
}
