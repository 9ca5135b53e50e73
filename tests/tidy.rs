//! Rules of the workspace that the compiler does not check: who depends on whom, and what the core
//! must not touch.
//!
//! The rules read the sources as text. They see what is written plainly, which is enough against
//! mistakes; nobody is expected to hide from them.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::path::{Path, PathBuf};

/// What a machine without IO must not name.
const IO: [&str; 6] = [
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::os",
];

/// Clocks, whose names tell them from [`std::time::Duration`].
const CLOCKS: [&str; 2] = ["Instant", "SystemTime"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust files below a folder, relative to the root.
fn sources(folder: &str) -> Vec<PathBuf> {
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

/// The lines of a file without its comments and its unit tests, each behind its number.
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim() == "#[cfg(test)]" {
            break;
        }
        let line = line.split_once(" // ").map_or(line, |(code, _)| code);
        if !line.trim_start().starts_with("//") {
            lines.push((at + 1, line));
        }
    }
    lines
}

/// Whether `name` stands in `line` as a name of its own, not as a part of another.
fn names(line: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + name.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// The entries of a manifest's tables of this name, also of those for one target only: key and
/// value.
fn entries(manifest: &str, table: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut entries = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            inside = header == table || header.ends_with(&format!(".{table}"));
            if let Some(name) = header.strip_prefix(&format!("{table}.")) {
                panic!("write {name} as one line of [{table}], so that this test reads it");
            }
        } else if inside && let Some((key, value)) = line.split_once('=') {
            let key = key.trim().trim_matches('"');
            let key = key.split_once('.').map_or(key, |(key, _)| key);
            entries.push((key.to_owned(), value.trim().to_owned()));
        }
    }
    entries
}

/// What a crate links, in all configurations but its tests.
fn dependencies(crate_folder: &str) -> Vec<(String, String)> {
    let found = entries(&read(format!("{crate_folder}/Cargo.toml")), "dependencies");
    assert!(!found.is_empty(), "{crate_folder} has no dependencies");
    found
}

#[test]
fn the_core_links_tokio_and_redb_only_with_its_native_feature() {
    for (name, value) in dependencies("core") {
        let of_a_shell = ["tokio", "redb", "futures", "tracing", "uuid"].contains(&name.as_str());
        if of_a_shell || name.starts_with("tokio-") {
            assert!(
                value.contains("optional = true"),
                "core: {name} must be optional"
            );
        }
    }
    for (feature, value) in entries(&read("core/Cargo.toml"), "features") {
        let shells = ["tokio", "redb", "native"];
        let named = shells.iter().any(|shell| value.contains(shell));
        assert!(
            ["native", "testing"].contains(&feature.as_str()) || !named,
            "core: feature {feature} must not turn the shells on"
        );
    }
}

#[test]
fn crates_depend_towards_the_core() {
    let ours = |crate_folder| -> Vec<String> {
        let all = dependencies(crate_folder).into_iter().map(|(name, _)| name);
        all.filter(|name| name.starts_with("reconverge")).collect()
    };
    assert!(ours("core").is_empty(), "the core depends on no shell");
    assert_eq!(ours("server"), ["reconverge"]);
    assert_eq!(ours("wasm"), ["reconverge"]);
}

#[test]
fn the_core_names_no_clock_file_socket_or_thread() {
    let mut found = Vec::new();
    for path in sources("core/src") {
        // The suite that backends run, and the shells.
        let exempt = path.starts_with("core/src/native")
            || path.ends_with("native.rs")
            || path.ends_with("conformance.rs");
        if exempt {
            continue;
        }
        for (number, line) in code(&read(&path)) {
            let io = IO.iter().any(|name| line.contains(name));
            let clock = CLOCKS.iter().any(|name| names(line, name));
            // What is imported in braces would not be seen.
            if io || clock || line.contains("use std::{") {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_channel_is_bounded() {
    let mut found = Vec::new();
    for path in sources("core/src").into_iter().chain(sources("server/src")) {
        for (number, line) in code(&read(&path)) {
            let unbounded = names(line, "unbounded_channel")
                || line.contains("mpsc::unbounded")
                || line.contains("mpsc::channel()")
                || (line.contains("mpsc::channel::<") && line.contains(">()"));
            if unbounded {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn core_and_server_forbid_unsafe_code() {
    let says = |path: &str, line: &str| read(path).lines().any(|said| said == line);
    for path in ["core/src/lib.rs", "server/src/lib.rs"] {
        let forbids = says(path, "#![forbid(unsafe_code)]");
        assert!(forbids, "{path} must forbid unsafe code");
    }
    // The settings of the allocator have no safe function.
    let (main, but) = ("server/src/main.rs", "server/src/cli/allocator.rs");
    assert!(
        says(main, "#![deny(unsafe_code)]"),
        "{main} must deny unsafe code"
    );
    for path in sources("server/src") {
        let allows = read(&path).contains("allow(unsafe_code");
        assert_eq!(allows, path == Path::new(but), "{}", path.display());
    }
}

#[test]
fn the_rules_see_what_they_should() {
    let text =
        "use a; // std::fs\n/// std::net\n    let x = Instant::now();\n#[cfg(test)]\nstd::fs";
    assert_eq!(
        code(text),
        [(1, "use a;"), (3, "    let x = Instant::now();")]
    );
    assert!(names("use std::time::{Duration, Instant};", "Instant"));
    assert!(!names("let Instantly = 1;", "Instant"));
    let manifest = "[dependencies]\na.workspace = true\nb = \"1\"\n[features]\nc = []";
    let value = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        entries(manifest, "dependencies"),
        [value("a", "true"), value("b", "\"1\"")]
    );
}
