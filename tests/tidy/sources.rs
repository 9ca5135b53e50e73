//! The sources of the workspace, as text.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust files below a folder, relative to the root.
pub(crate) fn sources(folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(!files.is_empty(), "no sources below {folder}");
    files.sort();
    files
}

/// The lines of a file without its comments and what only its unit tests have, each behind its
/// number.
pub(crate) fn code(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut all = text.lines().enumerate();
    while let Some((at, line)) = all.next() {
        let indent = line.len() - line.trim_start().len();
        if line.trim() == "#[cfg(test)]" {
            // The item ends in the first line that is not deeper and ends it.
            let ends = |line: &str| line.ends_with([';', '}', ',']);
            let blank = |line: &str| line.trim().is_empty();
            let deeper = |line: &str| blank(line) || line.get(..=indent).is_some_and(blank);
            let _ = all.find(|(_, line)| !deeper(line) && ends(line));
            continue;
        }
        let line = line.split_once(" // ").map_or(line, |(code, _)| code);
        if !line.trim_start().starts_with("//") {
            lines.push((at + 1, line));
        }
    }
    lines
}

/// Whether `name` stands in `line` as a name of its own, not as a part of another.
pub(crate) fn names(line: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + name.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[test]
fn the_rules_see_what_they_should() {
    let text = "use a; // std::fs\n/// std::net\n    let x = Instant::now();\n\
                #[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\nuse b;\n\
                #[cfg(test)]\nmod more;\nstd::fs";
    assert_eq!(
        code(text),
        [
            (1, "use a;"),
            (3, "    let x = Instant::now();"),
            (9, "use b;"),
            (12, "std::fs"),
        ]
    );
    assert!(names("use std::time::{Duration, Instant};", "Instant"));
    assert!(!names("let Instantly = 1;", "Instant"));
}
