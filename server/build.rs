//! Puts the demo's files into the binary, if they were built before it (`npm run build` in
//! `examples/demo`). Without them the relay is the same but for `--demo`.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// What browsers are told that a file is.
const KINDS: [(&str, &str); 5] = [
    ("html", "text/html; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("wasm", "application/wasm"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let folder = here.join("../examples/demo/dist");
    let mut files = Vec::new();
    // The folder is there in a checkout, empty but for what keeps it there. Naming one that is
    // not would run this again for every build.
    if let Ok(folder) = folder.canonicalize() {
        println!("cargo::rerun-if-changed={}", folder.display());
        collect(&folder, &folder, &mut files);
    }
    files.sort();

    let mut code = String::from("static FILES: &[File] = &[\n");
    for (name, path, kind) in &files {
        let mut hasher = DefaultHasher::new();
        fs::read(path).expect("it was listed").hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        let compressed = |extension: &str| {
            let path = PathBuf::from(format!("{}.{extension}", path.display()));
            match path.exists() {
                true => format!("Some(include_bytes!({path:?}))"),
                false => String::from("None"),
            }
        };
        let (brotli, gzip) = (compressed("br"), compressed("gz"));
        writeln!(
            code,
            "    File {{ path: {name:?}, kind: {kind:?}, etag: {etag:?}, plain: include_bytes!({path:?}), brotli: {brotli}, gzip: {gzip} }},"
        )
        .expect("a string takes all");
    }
    code.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("demo_files.rs"), code).expect("cargo made the folder");
}

/// The files below a folder that are of a known kind, by the path at which they are served.
fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf, &'static str)>) {
    for entry in fs::read_dir(folder).expect("it was listed") {
        let path = entry.expect("it was listed").path();
        if path.is_dir() {
            collect(root, &path, files);
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        let kind = KINDS.iter().find(|(known, _)| Some(*known) == extension);
        let (Some((_, kind)), Ok(name)) = (kind, path.strip_prefix(root)) else {
            continue;
        };
        files.push((format!("/{}", name.display()), path.clone(), kind));
    }
}
