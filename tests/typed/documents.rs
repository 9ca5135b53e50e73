//! Documents that are made and edited by values, and the types that several tests share.

use std::fmt::Debug;

use automerge::transaction::{Transactable, Transaction};
use automerge::{ActorId, Automerge, ObjId, ROOT, ReadDoc, ScalarValue};
use reconverge::typed::{Timestamp, update, write};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) fn document(edit: impl FnOnce(&mut Transaction<'_>)) -> Automerge {
    let mut document = Automerge::new().with_actor(ActorId::from([1]));
    change(&mut document, edit);
    document
}

/// Edits, and gives how many operations that took.
pub(crate) fn change(document: &mut Automerge, edit: impl FnOnce(&mut Transaction<'_>)) -> usize {
    let mut tx = document.transaction();
    edit(&mut tx);
    let operations = tx.pending_ops();
    tx.commit();
    operations
}

pub(crate) fn of(value: &impl Serialize) -> Automerge {
    document(|tx| write(tx, &ROOT, value).unwrap())
}

pub(crate) fn edit<T: DeserializeOwned + Serialize>(
    document: &mut Automerge,
    edit: impl FnOnce(&mut T),
) -> usize {
    change(document, |tx| update(tx, &ROOT, edit).unwrap())
}

pub(crate) fn fork(document: &Automerge, actor: u8) -> Automerge {
    document.fork().with_actor(ActorId::from([actor]))
}

pub(crate) fn scalar(document: &Automerge, key: &str) -> ScalarValue {
    let (value, _) = document.get(ROOT, key).unwrap().unwrap();
    value.into_scalar().unwrap()
}

pub(crate) fn object(document: &Automerge, key: &str) -> ObjId {
    let (value, id) = document.get(ROOT, key).unwrap().unwrap();
    assert!(value.is_object(), "{value:?}");
    id
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Shape {
    Nothing,
    Circle(f64),
    Line(u8, u8),
    Box { width: u32 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) note: Option<String>,
    #[serde(default)]
    pub(crate) lines: Vec<Line>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paid_ms: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) article: String,
    pub(crate) count: u32,
}

pub(crate) fn line(article: &str, count: u32) -> Line {
    let article = article.to_owned();
    Line { article, count }
}

pub(crate) fn order(lines: &[Line]) -> Order {
    Order {
        customer: "Ann".into(),
        note: None,
        lines: lines.to_vec(),
        paid_ms: None,
    }
}
