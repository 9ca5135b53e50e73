//! A relay whose disk and access change on command.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use reconverge_tests::patience::PATIENCE;

/// The relay with a disk and access that change on command.
pub(crate) struct FaultyRelay {
    child: Child,
    commands: ChildStdin,
    lines: mpsc::Receiver<String>,
    pub(crate) url: String,
    folder: tempfile::TempDir,
}

impl FaultyRelay {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_faulty-relay"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let (line, lines) = mpsc::sync_channel(64);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for read in stdout.lines().map_while(Result::ok) {
                let _ = line.send(read);
            }
        });
        let ready = lines.recv_timeout(PATIENCE).unwrap();
        let (_, address) = ready.split_once("listening on ").unwrap();
        let url = format!("ws://{}/", address.trim());
        Self {
            commands: child.stdin.take().unwrap(),
            child,
            lines,
            url,
            folder,
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub(crate) async fn logged(&self, words: &str) {
        let logged = async {
            while !self.log().contains(words) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let timely = tokio::time::timeout(PATIENCE, logged).await;
        timely.unwrap_or_else(|_| panic!("{words:?} is not in {}", self.log()));
    }

    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
        let answer = self.lines.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answer, format!("ok {command}"));
    }
}

impl Drop for FaultyRelay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
