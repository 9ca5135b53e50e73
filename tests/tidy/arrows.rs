//! Which module may import which: arrows that point one way.
//!
//! Two modules of one folder that import each other are one idea in two files. What they share goes
//! into the file of the folder, as in `super::Thing`, or into a module of its own.

use std::collections::{BTreeMap, BTreeSet};

use crate::imports::{Imports, Module};

/// What each module of the core may import of the others, from the lowest to the highest. All may
/// name `planted`, where tests plant mistakes.
const OF_THE_CORE: &[(&str, &[&str])] = &[
    ("planted", &[]),
    ("id", &[]),
    ("leb", &[]),
    ("difference", &[]),
    ("typed", &[]),
    ("protocol", &["id", "leb"]),
    ("session", &["id", "protocol"]),
    ("history", &["id", "leb", "protocol"]),
    ("cursor", &["history"]),
    ("contents", &["history", "id"]),
    ("storage", &["history", "id"]),
    (
        "replica",
        &[
            "contents",
            "difference",
            "history",
            "id",
            "protocol",
            "storage",
        ],
    ),
    (
        "engine",
        &[
            "contents", "history", "id", "leb", "protocol", "replica", "session", "storage",
        ],
    ),
    (
        "native",
        &[
            "contents",
            "difference",
            "engine",
            "history",
            "id",
            "leb",
            "protocol",
            "replica",
            "session",
            "storage",
            "typed",
        ],
    ),
];

/// The same of the relay. `cli` is of the binary, which uses the library by its name.
const OF_THE_RELAY: &[(&str, &[&str])] = &[
    ("lifetime", &[]),
    ("takeover", &[]),
    ("limits", &[]),
    ("telemetry", &["lifetime"]),
    ("workshop", &["limits"]),
    ("config", &["workshop"]),
    ("access", &[]),
    ("remote_heads", &[]),
    ("peers", &["limits", "remote_heads"]),
    (
        "document",
        &[
            "access",
            "config",
            "lifetime",
            "limits",
            "peers",
            "remote_heads",
            "telemetry",
            "workshop",
        ],
    ),
    (
        "connection",
        &["document", "limits", "peers", "remote_heads", "telemetry"],
    ),
    ("entrance", &["config", "connection", "document"]),
    (
        "relay",
        &[
            "access",
            "config",
            "connection",
            "document",
            "entrance",
            "lifetime",
            "takeover",
        ],
    ),
    ("cli", &[]),
];

/// Imports between modules of one folder (folder, from, to) that lead back to where they come from.
/// Nothing is added: this list only shrinks.
const EXCEPTIONS: &[(&str, &str, &str)] = &[("core/src/native", "handle", "repo")];

type Arrow = (String, String);

fn arrow(from: &str, to: &str) -> Arrow {
    (from.to_owned(), to.to_owned())
}

/// Everything that is reached from here by at least one arrow.
fn reached<'a>(arrows: &'a BTreeSet<Arrow>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        for (from, to) in arrows {
            if from == at && reached.insert(to.as_str()) {
                next.push(to);
            }
        }
    }
    reached
}

/// The arrows that lead back to where they come from.
fn cycles(arrows: &BTreeSet<Arrow>) -> BTreeSet<Arrow> {
    let back = |(from, to): &&Arrow| reached(arrows, to).contains(from.as_str());
    arrows.iter().filter(back).cloned().collect()
}

/// What is wrong with the arrows between the modules of one folder, but for the exceptions.
fn faults(arrows: &BTreeSet<Arrow>, exceptions: &BTreeSet<Arrow>) -> Vec<String> {
    let lead_back = cycles(arrows);
    let needless = exceptions.difference(&lead_back);
    let needless = needless.map(|(from, to)| {
        format!("{from} and {to} are an exception that is no longer needed: remove it")
    });
    let without: BTreeSet<Arrow> = arrows.difference(exceptions).cloned().collect();
    let left = cycles(&without);
    let left = left
        .iter()
        .map(|(from, to)| format!("{from} imports {to}, and {to} leads back to {from}"));
    left.chain(needless).collect()
}

/// What modules import that their crate's list does not let them.
fn forbidden(crate_folder: &str, list: &[(&str, &[&str])]) -> Vec<String> {
    let imports = Imports::of_crate(crate_folder);
    let listed = list.iter().map(|(module, _)| module.to_string());
    assert_eq!(
        imports.children(&[]),
        listed.collect::<BTreeSet<_>>(),
        "each module has its line in the list"
    );
    let below = |to: &str| list.iter().position(|(module, _)| *module == to);
    for (at, (from, may)) in list.iter().enumerate() {
        for to in *may {
            assert!(below(to) < Some(at), "{to} must stand before {from}");
        }
    }
    let may = |from: &str, to: &str| {
        let mut lines = list.iter();
        to == "planted" || lines.any(|(module, all)| *module == from && all.contains(&to))
    };
    let wrong = imports.between_children(&[]).into_iter();
    let wrong = wrong.filter(|(from, to)| !may(from, to));
    wrong
        .map(|(from, to)| format!("{from} must not import {to}"))
        .collect()
}

#[test]
fn modules_import_what_they_may() {
    for (crate_folder, list) in [("core/src", OF_THE_CORE), ("server/src", OF_THE_RELAY)] {
        let wrong = forbidden(crate_folder, list);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn modules_of_one_folder_do_not_import_each_other_in_a_cycle() {
    let mut exceptions: BTreeMap<String, BTreeSet<Arrow>> = BTreeMap::new();
    for (folder, from, to) in EXCEPTIONS {
        let of_folder = exceptions.entry((*folder).to_owned()).or_default();
        assert!(
            of_folder.insert(arrow(from, to)),
            "{folder}: {from}, {to} twice"
        );
    }
    let mut found = Vec::new();
    for crate_folder in ["core/src", "server/src"] {
        let imports = Imports::of_crate(crate_folder);
        for parent in imports.parents() {
            let folder = [&[crate_folder.to_owned()], parent.as_slice()]
                .concat()
                .join("/");
            let of_folder = exceptions.remove(&folder).unwrap_or_default();
            let wrong = faults(&imports.between_children(&parent), &of_folder);
            found.extend(wrong.into_iter().map(|wrong| format!("{folder}: {wrong}")));
        }
    }
    found.extend(
        exceptions
            .keys()
            .map(|folder| format!("{folder}: there is no such folder")),
    );
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_planted_cycle_is_seen() {
    let files = [
        ("lib.rs", ""),
        ("a.rs", "pub(crate) use self::one::One;"),
        ("a/one.rs", "use super::two::Two;"),
        ("a/two.rs", "fn f() -> crate::a::three::deep::X {}"),
        ("a/three.rs", "use super::four;\nuse super::One;"),
        ("a/three/deep.rs", ""),
        (
            "a/four.rs",
            "use crate::b;\n#[cfg(test)]\nmod tests {\n    use super::super::one;\n}",
        ),
        ("b.rs", "use crate::a::One;"),
    ];
    let between = |files: &[(&'static str, &'static str)]| {
        let files = files
            .iter()
            .map(|(path, text)| (std::path::Path::new(*path), *text));
        let imports = Imports::of_files(files);
        let all: Module = imports.children(&["a".to_owned()]).into_iter().collect();
        assert_eq!(all, ["four", "one", "three", "two"]);
        imports.between_children(&["a".to_owned()])
    };
    let none = BTreeSet::new();
    let arrows = between(&files);
    let ways = [
        arrow("one", "two"),
        arrow("three", "four"),
        arrow("two", "three"),
    ];
    assert_eq!(arrows, BTreeSet::from(ways));
    assert_eq!(
        faults(&arrows, &none),
        Vec::<String>::new(),
        "one way, and by the parent"
    );

    let mut planted = files;
    planted[5].1 = "use super::super::{one::One, two};";
    let arrows = between(&planted);
    assert_eq!(
        faults(&arrows, &none),
        [
            "one imports two, and two leads back to one",
            "three imports one, and one leads back to three",
            "three imports two, and two leads back to three",
            "two imports three, and three leads back to two",
        ]
    );
    let excused = BTreeSet::from([arrow("three", "one"), arrow("three", "two")]);
    assert_eq!(faults(&arrows, &excused), Vec::<String>::new());
    let mut more = excused;
    more.insert(arrow("three", "four"));
    assert_eq!(
        faults(&arrows, &more),
        ["three and four are an exception that is no longer needed: remove it"]
    );
}
