//! Who depends on whom, by the manifests.

use crate::sources::read;

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
fn a_manifest_is_read_table_by_table() {
    let manifest = "[dependencies]\na.workspace = true\nb = \"1\"\n[features]\nc = []";
    let value = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        entries(manifest, "dependencies"),
        [value("a", "true"), value("b", "\"1\"")]
    );
}
