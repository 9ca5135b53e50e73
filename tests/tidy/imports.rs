//! Which module names which: read from the sources of a crate, whose files are its modules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::sources::{code, read, sources};

/// A module's path in its crate; the crate itself has the empty one.
pub(crate) type Module = Vec<String>;

/// The modules of a crate, and which modules each of them names.
#[derive(Debug)]
pub(crate) struct Imports(BTreeMap<Module, BTreeSet<Module>>);

impl Imports {
    /// Those of the sources below a folder.
    pub(crate) fn of_crate(folder: &str) -> Self {
        let files = sources(folder).into_iter().map(|path| {
            let text = read(&path);
            (path.strip_prefix(folder).unwrap().to_owned(), text)
        });
        let files: Vec<_> = files.collect();
        Self::of_files(files.iter().map(|(path, text)| (path.as_path(), &**text)))
    }

    /// Those of these files, whose paths are relative to the root of the crate.
    pub(crate) fn of_files<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Self {
        let files: BTreeMap<Module, &str> = files
            .into_iter()
            .map(|(path, text)| (module(path), text))
            .collect();
        let tests: Vec<Module> = files
            .iter()
            .flat_map(|(module, text)| {
                let tests = test_modules(text);
                tests.map(|name| [module.as_slice(), &[name.to_owned()]].concat())
            })
            .collect();
        let of_tests = |module: &Module| tests.iter().any(|tests| module.starts_with(tests));
        let known: BTreeSet<Module> = files.keys().filter(|m| !of_tests(m)).cloned().collect();
        let named = |from: &Module| -> BTreeSet<Module> {
            let lines: Vec<&str> = code(files[from])
                .into_iter()
                .map(|(_, line)| line)
                .collect();
            let text = lines.join("\n");
            paths(&words(&text))
                .iter()
                .filter_map(|path| resolve(path, from, &known))
                .filter(|to| to != from)
                .collect()
        };
        Self(
            known
                .iter()
                .map(|from| (from.clone(), named(from)))
                .collect(),
        )
    }

    /// The modules right below this one.
    pub(crate) fn children(&self, parent: &[String]) -> BTreeSet<String> {
        let below = self.0.keys().filter(|module| module.starts_with(parent));
        below
            .filter_map(|module| module.get(parent.len()).cloned())
            .collect()
    }

    /// The modules that have others below them.
    pub(crate) fn parents(&self) -> BTreeSet<Module> {
        let modules = self.0.keys().filter(|module| !module.is_empty());
        modules
            .map(|module| module[..module.len() - 1].to_vec())
            .collect()
    }

    /// Which of a module's children names which, each with all that is below it.
    pub(crate) fn between_children(&self, parent: &[String]) -> BTreeSet<(String, String)> {
        let child = |module: &Module| {
            let rest = module.strip_prefix(parent)?;
            rest.first().cloned()
        };
        let mut between = BTreeSet::new();
        for (from, named) in &self.0 {
            for to in named {
                if let (Some(from), Some(to)) = (child(from), child(to))
                    && from != to
                {
                    between.insert((from, to));
                }
            }
        }
        between
    }
}

/// The module that a file is.
fn module(path: &Path) -> Module {
    let path = path.with_extension("");
    let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
    let names: Module = names.collect();
    match names.join("/").as_str() {
        "lib" | "main" => Module::new(),
        _ => names,
    }
}

/// The modules in files of their own that only tests have.
fn test_modules(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    let pairs = lines.clone().zip(lines.skip(1));
    pairs.filter_map(|(line, next)| {
        let module = next.strip_prefix("mod ")?.strip_suffix(';')?;
        (line == "#[cfg(test)]").then_some(module)
    })
}

/// The longest part of a path that is a module.
fn resolve(path: &[&str], from: &Module, known: &BTreeSet<Module>) -> Option<Module> {
    let mut at = match path[0] {
        "crate" => Module::new(),
        _ => from.clone(),
    };
    for name in path {
        match *name {
            "crate" | "self" => {}
            "super" => {
                at.pop()?;
            }
            name => {
                at.push(name.to_owned());
                if !known.contains(&at) {
                    at.pop();
                    break;
                }
            }
        }
    }
    Some(at)
}

/// The words and signs of a source, without spaces and what stands in quotes.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    let part = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' => 1 + quoted(&rest[1..]),
            // A character; otherwise it is a lifetime.
            '\'' if rest[1..].starts_with('\\') => rest[3..].find('\'').map_or(1, |at| at + 4),
            '\'' if rest.chars().nth(2) == Some('\'') => {
                2 + rest.chars().nth(1).unwrap().len_utf8()
            }
            ':' if rest.starts_with("::") => 2,
            first if part(first) => rest.find(|c| !part(c)).unwrap_or(rest.len()),
            first => first.len_utf8(),
        };
        let (word, behind) = rest.split_at(len);
        if !first.is_whitespace() && first != '"' {
            words.push(word);
        }
        rest = behind;
    }
    words
}

/// How long a text in quotes is, with the quote at its end.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |at| at + 1)
}

/// All paths that begin at the crate, at the module itself or at the one above it, with the groups
/// in braces taken apart.
fn paths<'a>(words: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut paths = Vec::new();
    for at in 0..words.len() {
        let begins = ["crate", "self", "super"].contains(&words[at])
            && words.get(at + 1) == Some(&"::")
            // `pub(in crate::a)` names nobody, and the rest of a path was read with its beginning.
            && !(at > 0 && ["::", "in", "$"].contains(&words[at - 1]));
        if begins {
            tree(words, at, &mut Vec::new(), &mut paths);
        }
    }
    paths
}

/// Reads a path, or the tree of a `use`; where it ends.
fn tree<'a>(
    words: &[&'a str],
    mut at: usize,
    path: &mut Vec<&'a str>,
    paths: &mut Vec<Vec<&'a str>>,
) -> usize {
    let len = path.len();
    loop {
        if words[at] == "{" {
            at += 1;
            while words[at] != "}" {
                at = tree(words, at, path, paths);
                // What it is called here.
                while ![",", "}"].contains(&words[at]) {
                    at += 1;
                }
                if words[at] == "," {
                    at += 1;
                }
            }
            break;
        }
        let named = words[at].starts_with(|c: char| c.is_alphabetic() || c == '_');
        if named {
            path.push(words[at]);
        }
        if !named || words.get(at + 1) != Some(&"::") {
            paths.push(path.clone());
            break;
        }
        at += 2;
    }
    path.truncate(len);
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_wherever_they_stand() {
        let text = "use crate::a::{self, b::{C, D as E}, f::*};\n\
                    pub(in crate::g) fn h(x: &'a super::i::J) -> crate::K<'_> {\n\
                    let s = \"crate::l\\\"\"; let c = ['\"', '\\'', '\\n']; crate::m::n::<u8>(); std::o::super_ }";
        let shown: Vec<String> = paths(&words(text))
            .iter()
            .map(|path| path.join("::"))
            .collect();
        let expected = [
            "crate::a::self",
            "crate::a::b::C",
            "crate::a::b::D",
            "crate::a::f",
            "super::i::J",
            "crate::K",
            "crate::m::n",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn files_are_modules_and_tests_are_none() {
        let files = [
            ("lib.rs", "mod a;\nmod d;"),
            (
                "a.rs",
                "mod b;\n#[cfg(test)]\nmod tests;\nuse self::b::X;\nuse crate::d;",
            ),
            (
                "a/b.rs",
                "use super::super::d::Y;\n#[cfg(test)]\nmod tests {\n    use crate::e;\n}\nuse super::c;",
            ),
            ("a/c.rs", "// use super::b;\nfn x() { super::b::z(); }"),
            ("a/tests.rs", "use crate::e;"),
            ("d.rs", ""),
            ("e.rs", ""),
        ];
        let files = files.map(|(path, text)| (Path::new(path), text));
        let imports = Imports::of_files(files);
        let shown = |module: &[&str]| {
            let module: Module = module.iter().map(|&name| name.to_owned()).collect();
            let named = imports.0[&module].iter().map(|named| named.join("::"));
            named.collect::<Vec<_>>()
        };
        assert_eq!(shown(&["a"]), ["a::b", "d"]);
        assert_eq!(shown(&["a", "b"]), ["a::c", "d"]);
        assert_eq!(shown(&["a", "c"]), ["a::b"]);
        assert!(
            !imports
                .0
                .keys()
                .any(|module| module.ends_with(&["tests".to_owned()]))
        );
    }
}
