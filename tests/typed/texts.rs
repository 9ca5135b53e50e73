//! Texts are edited character by character.

use std::collections::HashMap;
use std::fmt::Debug;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT, ReadDoc};
use reconverge::typed::{read, write};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::documents::{Line, change, document, edit, fork, line, of};

#[test]
fn texts_merge_and_words_do_not_mix() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Page {
        title: String,
        state: State,
    }
    #[derive(Debug, Serialize, Deserialize)]
    enum State {
        New,
        Paid,
        Sent,
    }
    let title = "bread 😀 and milk".to_owned();
    let mut document = of(&Page {
        title,
        state: State::New,
    });
    let mut other = fork(&document, 2);
    edit(&mut document, |page: &mut Page| {
        page.title = page.title.replace("milk", "some milk");
        page.state = State::Paid;
    });
    edit(&mut other, |page: &mut Page| {
        page.title = page.title.replace("bread", "breads");
        page.state = State::Sent;
    });
    document.merge(&mut other).unwrap();
    let merged: Page = read(&document, &ROOT).unwrap();
    assert_eq!(merged.title, "breads 😀 and some milk");
    assert!(matches!(merged.state, State::Paid | State::Sent));
    assert_eq!(document.get_all(ROOT, "state").unwrap().len(), 2);

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Step {
        Opened,
        Opening { by: String },
        Openings(Line),
    }
    let mut document = of(&Step::Opened);
    let mut other = fork(&document, 2);
    edit(&mut document, |step: &mut Step| {
        *step = Step::Opening { by: "Ann".into() };
    });
    edit(&mut other, |step: &mut Step| {
        *step = Step::Openings(line("lamp", 1))
    });
    document.merge(&mut other).unwrap();
    let merged: Step = read(&document, &ROOT).unwrap();
    assert!(!matches!(merged, Step::Opened), "{merged:?}");

    let mut document = of(&HashMap::from([("name", "Ann")]));
    let mut other = fork(&document, 2);
    for (document, name) in [(&mut document, "Bob"), (&mut other, "Eve")] {
        edit(document, |all: &mut HashMap<String, String>| {
            all.insert("name".into(), name.into());
        });
    }
    document.merge(&mut other).unwrap();
    let merged: HashMap<String, String> = read(&document, &ROOT).unwrap();
    assert!(["Bob", "Eve"].contains(&&*merged["name"]), "{merged:?}");
}

/// Whatever places a document counts in.
#[test]
fn texts_are_edited_in_every_encoding() {
    use automerge::TextEncoding::{GraphemeCluster, UnicodeCodePoint, Utf8CodeUnit, Utf16CodeUnit};
    for encoding in [
        UnicodeCodePoint,
        Utf8CodeUnit,
        Utf16CodeUnit,
        GraphemeCluster,
    ] {
        let mut document = Automerge::new_with_encoding(encoding);
        let text = "ä 😀 one e\u{301} two";
        change(&mut document, |tx| {
            write(tx, &ROOT, &json!({ "text": text })).unwrap()
        });
        let edited = "ä 😀! 1 e\u{301} zwei 2";
        edit(&mut document, |all: &mut serde_json::Value| {
            all["text"] = edited.into()
        });
        let read: serde_json::Value = read(&document, &ROOT).unwrap();
        assert_eq!(read["text"], edited, "{encoding:?}");
    }
}

/// Some clients inserted several characters as one element of a text.
#[test]
fn characters_of_one_element_are_edited() {
    let before = document(|tx| {
        let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
        tx.splice_text(&text, 0, 0, "one three").unwrap();
        tx.insert(&text, 4, "two ").unwrap();
    });
    let now = |document: &Automerge| {
        let mut all: HashMap<String, String> = read(document, &ROOT).unwrap();
        all.remove("text").unwrap()
    };
    assert_eq!(now(&before), "one two three");
    for after in [
        "one to three",
        "one two 3",
        "one tw three",
        "",
        "one twoo three",
    ] {
        let mut document = fork(&before, 2);
        edit(&mut document, |all: &mut HashMap<String, String>| {
            *all.get_mut("text").unwrap() = after.into();
        });
        assert_eq!(now(&document), after);
    }
}
