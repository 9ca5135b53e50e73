//! A client: an engine that may be running, on a disk of its own.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ChangeHash, ObjType, ROOT, ReadDoc, Value};
use reconverge::engine::{Asked, Engine};
use reconverge::id::{ConnectionId, DocumentId};
use reconverge::storage::Batch;
use reconverge_tests::Random;

use crate::disk::Disk;
use crate::network::WireId;

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) disk: Arc<Disk>,
    /// `None` while it does not run.
    pub(crate) engine: Option<Engine>,
    /// Counts its starts.
    pub(crate) life: u64,
    /// The relays that it knows, by their places.
    pub(crate) relays: Vec<usize>,
    pub(crate) reader: bool,
    pub(crate) wires: HashMap<ConnectionId, WireId>,
    /// Commits on their way, in order.
    pub(crate) commits: VecDeque<Batch>,
    /// When it is woken next.
    pub(crate) wakes_at: Option<Duration>,
    /// Documents that it made, imported or searched for in this life.
    pub(crate) opened: BTreeSet<DocumentId>,
    /// A document of it cannot go on until the next start.
    pub(crate) failed: bool,
    /// Its name in this life.
    pub(crate) name: String,
    /// What it asked in this life and was not answered.
    pub(crate) questions: HashMap<Asked, Question>,
    /// The last presence message of each peer that it heard in this life.
    pub(crate) heard: HashMap<String, u64>,
}

/// Whether a document is current.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) document: DocumentId,
    /// What relays had named of it when it was asked, by wire.
    pub(crate) said: HashMap<WireId, Vec<ChangeHash>>,
    /// The last wire then.
    pub(crate) wires_made: WireId,
}

impl Client {
    pub(crate) fn new(disk: Arc<Disk>, relays: Vec<usize>, reader: bool) -> Self {
        Self {
            disk,
            engine: None,
            life: 0,
            relays,
            reader,
            wires: HashMap::new(),
            commits: VecDeque::new(),
            wakes_at: None,
            opened: BTreeSet::new(),
            failed: false,
            name: String::new(),
            questions: HashMap::new(),
            heard: HashMap::new(),
        }
    }
}

/// One edit of some kind: text, list, counter, map, or a removal.
pub(crate) fn edit(tx: &mut Transaction<'_>, random: &mut Random) -> Result<(), AutomergeError> {
    match random.below(8) {
        0 | 1 => {
            let text = match tx.get(ROOT, "text")? {
                Some((Value::Object(ObjType::Text), text)) => text,
                _ => tx.put_object(ROOT, "text", ObjType::Text)?,
            };
            let len = tx.length(&text) as u64;
            let at = random.below(len + 1) as usize;
            let removed = random.below(3).min(len - at as u64) as isize;
            let letters = ["a", "bc", "déf", "🙂"];
            tx.splice_text(&text, at, removed, letters[random.below(4) as usize])
        }
        2 => {
            let list = match tx.get(ROOT, "list")? {
                Some((Value::Object(ObjType::List), list)) => list,
                _ => tx.put_object(ROOT, "list", ObjType::List)?,
            };
            let len = tx.length(&list) as u64;
            if len > 2 && random.below(3) == 0 {
                tx.delete(&list, random.below(len) as usize)
            } else {
                tx.insert(
                    &list,
                    random.below(len + 1) as usize,
                    random.number() as i64,
                )
            }
        }
        3 => match tx.get(ROOT, "counter")? {
            Some((value, _)) if value.is_counter() => tx.increment(ROOT, "counter", 1),
            _ => tx.put(ROOT, "counter", automerge::ScalarValue::counter(0)),
        },
        4 => {
            let key = format!("key-{}", random.below(4));
            tx.put(ROOT, key, random.number() as i64)
        }
        5 => {
            // What equals nothing, and what equals another.
            let numbers = [f64::NAN, -0.0, 0.0, f64::INFINITY];
            let number = numbers[random.below(4) as usize];
            tx.put(ROOT, format!("number-{}", random.below(2)), number)
        }
        6 => {
            let mut outline = ROOT;
            while let Some((Value::Object(ObjType::Map), next)) = tx.get(&outline, "next")? {
                outline = next;
            }
            tx.put_object(&outline, "next", ObjType::Map).map(drop)
        }
        _ => {
            let map = match tx.get(ROOT, "map")? {
                Some((Value::Object(ObjType::Map), map)) => map,
                _ => tx.put_object(ROOT, "map", ObjType::Map)?,
            };
            let key = format!("key-{}", random.below(3));
            if random.below(4) == 0 && tx.get(&map, &key)?.is_some() {
                tx.delete(&map, key)
            } else {
                tx.put(&map, key, random.number() as i64)
            }
        }
    }
}
