//! What sources must not name, and what they must forbid.

use std::path::Path;

use crate::sources::{code, names, read, sources};

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
