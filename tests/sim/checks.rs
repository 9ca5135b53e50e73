//! What must hold: at any moment, and when everything is healed.

use std::collections::HashSet;

use automerge::{Automerge, Change, ChangeHash, ReadDoc};
use bytes::Bytes;
use reconverge::contents::Digest;
use reconverge::engine::{Asked, NotCurrent, Status};
use reconverge::id::DocumentId;
use reconverge::protocol::{self, Message, SyncMessage};
use reconverge::replica::Replica;
use reconverge_tests::world::hashes;

use crate::hostile;
use crate::network::{Party, WireId};
use crate::simulation::Simulation;

/// The changes that a sync message carries.
fn carried(message: &SyncMessage<'_>) -> HashSet<ChangeHash> {
    let mut found = HashSet::new();
    for chunk in &message.changes {
        match Change::try_from(*chunk) {
            Ok(change) => drop(found.insert(change.hash())),
            Err(_) => found.extend(Automerge::load(chunk).iter().flat_map(hashes)),
        }
    }
    found
}

/// Of two changes by one actor under one number only one is here.
fn check_numbers(document: &Automerge) {
    let mut numbers = HashSet::new();
    for change in document.get_changes_meta(&[]) {
        let number = (change.actor.clone(), change.seq);
        assert!(numbers.insert(number), "two changes have one number");
    }
}

/// At any moment.
impl Simulation {
    /// What a client calls saved is on the disk of a relay, unless an older copy took its place.
    pub(crate) fn check_saved(&self, at: usize) {
        let client = &self.clients[at];
        let Some(engine) = &client.engine else {
            return;
        };
        for id in engine.documents() {
            if let Some(reason) = engine.failure(id) {
                assert!(client.failed, "client {at} gave a document up: {reason}");
            }
            let (Some(Status::Saved), Some(heads)) = (engine.status(id), engine.contents_heads(id))
            else {
                continue;
            };
            let saved = client.relays.iter().any(|relay| {
                let relay = &self.relays[*relay];
                let lost = relay.lost.get(id);
                let is_lost = |head| lost.is_some_and(|lost| lost.contains(head));
                heads
                    .iter()
                    .all(|head| relay.disk.has(id, [head]) || is_lost(head))
            });
            assert!(saved, "client {at} calls saved what no relay has");
        }
    }

    /// What a client calls current has all that some relay had said when it was asked, or what one says
    /// that it was connected to since.
    pub(crate) fn check_current(
        &mut self,
        at: usize,
        asked: Asked,
        answer: &Result<(), NotCurrent>,
    ) {
        let client = &mut self.clients[at];
        let question = client.questions.remove(&asked);
        let question = question.expect("an answer to a question, and one");
        if answer.is_err() {
            return;
        }
        let id = question.document;
        let engine = client.engine.as_ref().expect("it answers");
        // Somebody may be editing it, or its contents may not be wanted.
        let document = engine.replica(&id).and_then(Replica::try_document);
        let is_here = |hash: &ChangeHash| {
            let is_shown = match &document {
                Some(document) => document.get_change_by_hash(hash).is_some(),
                None => engine.knows(&id, hash),
            };
            is_shown || client.disk.has(&id, [hash])
        };
        let is_current = client.wires.values().any(|wire| {
            let said = question.said.get(wire);
            said.map_or(*wire > question.wires_made, |said| {
                said.iter().all(&is_here)
            })
        });
        assert!(
            is_current,
            "client {at} calls current what is older than what it was told"
        );
        drop(document);
        self.count("a document current");
    }

    /// What a relay named to anybody is on its disk, unless an older copy took its place.
    pub(crate) fn check_durable(&self, relay: usize) {
        let of_relay = &self.relays[relay];
        for (id, named) in &of_relay.named {
            let here = of_relay.disk.changes_of(id);
            let lost = of_relay.lost.get(id);
            for head in named {
                let excused = lost.is_some_and(|lost| lost.contains(head));
                assert!(
                    here.contains(head) || excused,
                    "relay {relay} lost {head}, which it acknowledged"
                );
            }
        }
        for (id, forbidden) in &self.forbidden {
            let here = of_relay.disk.changes_of(id);
            assert!(
                here.is_disjoint(forbidden),
                "relay {relay} took a reader's change"
            );
        }
    }

    /// What a relay says is true: the heads are on its disk, and the client has what it is said
    /// to have.
    pub(crate) fn check_sent(&mut self, relay: usize, wire: WireId, id: DocumentId, data: &[u8]) {
        let message = SyncMessage::decode(data).expect("a relay speaks the protocol");
        let bytes: usize = message.changes.iter().map(|chunk| chunk.len()).sum();
        let largest = message.changes.iter().map(|chunk| chunk.len()).max();
        let max = self.relays[relay].message_bytes_max as usize + largest.unwrap_or(0);
        assert!(bytes <= max, "{bytes} bytes in one message");
        if message.have.is_empty() && !message.changes.is_empty() {
            self.count("a message that is not the last");
        }
        let of_relay = &mut self.relays[relay];
        assert!(
            of_relay.disk.has(&id, &message.heads),
            "relay {relay} names what it has not stored"
        );
        of_relay.named.entry(id).or_default().extend(&message.heads);
        if let Some(lost) = of_relay.lost.get_mut(&id) {
            // It has them again.
            lost.retain(|hash| !message.heads.contains(hash));
        }
        let owner = self.owner(wire);
        let wire = self.wires.get_mut(&wire).expect("it is being sent to");
        wire.told.insert(id, message.heads.clone());
        let given = wire.given.entry(id).or_default();
        given.extend(carried(&message));
        let sent = wire.taken.entry(id).or_default();
        let named = wire.named.entry(id).or_default();
        let Some((client, _)) = owner else {
            return;
        };
        let engine = self.clients[client].engine.as_ref();
        let Some(document) = engine.and_then(|engine| engine.document(&id)) else {
            return;
        };
        for hash in message.have.iter().flat_map(|have| &have.last_sync) {
            assert!(
                given.contains(hash)
                    || document.get_change_by_hash(hash).is_some()
                    // Sent before the document was deleted there, and found again since.
                    || sent.contains(hash)
                    // Named before it was made again under another actor.
                    || named.contains(hash),
                "relay {relay} claims that client {client} has {hash}"
            );
        }
    }

    /// What comes as presence was said by that peer on that document, and comes once and in order.
    pub(crate) fn check_heard(&mut self, at: usize, id: DocumentId, sender: &str, data: &[u8]) {
        if sender == hostile::NAME {
            return;
        }
        let number = data.try_into().map(u64::from_le_bytes);
        let number = number.expect("no client broadcasts anything but numbers");
        let said = &self.said[number as usize];
        assert_eq!(
            (said.0, said.1.as_str()),
            (id, sender),
            "another's presence"
        );
        let client = &mut self.clients[at];
        assert_ne!(client.name, sender, "client {at} hears itself");
        let last = client.heard.insert(sender.to_owned(), number);
        assert!(
            last.is_none_or(|last| last < number),
            "client {at} hears {number} after {last:?}"
        );
        self.heard.insert((at, number));
        self.count("a presence message heard");
    }

    /// When all is well, all hear what one of them broadcasts.
    pub(crate) fn check_audience(&self, from: usize, id: DocumentId, number: u64) {
        let relays = &self.clients[from].relays;
        for (at, client) in self.clients.iter().enumerate() {
            let engine = client.engine.as_ref().expect("all run");
            let shares = client.relays.iter().any(|relay| relays.contains(relay));
            if at != from && shares && engine.document(&id).is_some() {
                let heard = self.heard.contains(&(at, number));
                assert!(heard, "client {at} does not hear client {from}");
            }
        }
    }

    /// What a client says that a relay has, it has, unless an older copy took its place.
    pub(crate) fn check_claims(&mut self, relay: usize, id: WireId, frame: &Bytes) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        if wire.party == Party::Hostile {
            return;
        }
        let Ok(Message::Sync(sync)) = protocol::decode(frame) else {
            return;
        };
        let message = SyncMessage::decode(sync.data).expect("a client speaks the protocol");
        let document = sync.document.parse().expect("a client names documents");
        let taken = wire.taken.entry(document).or_default();
        taken.extend(carried(&message));
        let named = wire.named.entry(document).or_default();
        named.extend(&message.heads);
        let of_relay = &self.relays[relay];
        let lost = of_relay.lost.get(&document);
        for hash in message.have.iter().flat_map(|have| &have.last_sync) {
            assert!(
                taken.contains(hash)
                    || of_relay.disk.has(&document, [hash])
                    || lost.is_some_and(|lost| lost.contains(hash)),
                "a client claims that relay {relay} has {hash}"
            );
        }
    }
}

/// When everything is healed.
impl Simulation {
    /// What writers have, on their disks or open, is on all their relays, though nobody touched
    /// it since.
    pub(crate) fn check_outboxes(&self) {
        for (at, client) in self.clients.iter().enumerate() {
            if client.reader {
                continue;
            }
            for relay in &client.relays {
                for id in self.documents.iter().filter(|id| !self.forked.contains(id)) {
                    let mut kept = client.disk.changes_of(id);
                    let engine = client.engine.as_ref();
                    let is_open = engine.is_some_and(|engine| engine.documents().any(|d| d == id));
                    if self.restored.contains(relay) && !is_open {
                        // It had acknowledged all, so the document left the outbox. Nobody can
                        // know that it was taken back before the document is opened again.
                        continue;
                    }
                    let open = engine.and_then(|engine| engine.document(id));
                    kept.extend(open.into_iter().flat_map(|document| hashes(&document)));
                    assert!(
                        self.relays[*relay].disk.has(id, &kept),
                        "client {at} did not send relay {relay} all it has of document {id}"
                    );
                }
            }
        }
    }

    pub(crate) fn check_all(&mut self) {
        for relay in 0..self.relays.len() {
            self.check_durable(relay);
        }
        for id in self.documents.clone() {
            self.check_document(id);
        }
    }

    fn check_document(&mut self, id: DocumentId) {
        let stored: Vec<_> = self
            .relays
            .iter_mut()
            .map(|relay| relay.document(id).stored())
            .collect();
        for document in &stored {
            check_numbers(document);
        }
        let engines = self
            .clients
            .iter()
            .filter_map(|client| client.engine.as_ref());
        for document in engines.filter_map(|engine| engine.document(&id)) {
            check_numbers(&document);
        }
        if self.forked.contains(&id) {
            // Which of two changes came first, each of them found out for itself.
            return;
        }
        let sorted = |document: &Automerge| {
            let mut heads = document.get_heads();
            heads.sort_unstable();
            heads
        };
        let heads = sorted(&stored[0]);
        let contents = Digest::of(&stored[0]).unwrap();
        let all = hashes(&stored[0]);
        let made = self.made.get(&id).cloned().unwrap_or_default();
        assert!(
            all.is_subset(&made),
            "document {id} has a change from nowhere"
        );
        for (at, of_relay) in stored.iter().enumerate() {
            assert_eq!(sorted(of_relay), heads, "the heads of relay {at}");
            assert_eq!(
                Digest::of(of_relay).unwrap(),
                contents,
                "the contents of relay {at}"
            );
            assert_eq!(
                hashes(of_relay),
                self.relays[at].disk.changes_of(&id),
                "what relay {at} has on its disk"
            );
            let history = self.relays[at].document(id).history();
            assert_eq!(history.durable_heads().as_ref(), heads, "relay {at}");
        }
        for (at, client) in self.clients.iter().enumerate() {
            let engine = client.engine.as_ref().expect("all run");
            let Some(document) = engine.document(&id) else {
                assert!(all.is_empty(), "client {at} has not got document {id}");
                continue;
            };
            let mut own = hashes(&document);
            assert!(all.is_subset(&own), "client {at} lacks changes");
            own.retain(|hash| !all.contains(hash));
            if client.reader {
                // Its own, and what a relay lost to an older copy: it may bring neither.
                let mut kept = self.forbidden.get(&id).cloned().unwrap_or_default();
                let lost = self.relays.iter().filter_map(|relay| relay.lost.get(&id));
                kept.extend(lost.flatten());
                assert!(
                    own.is_subset(&kept),
                    "client {at} has a change from nowhere"
                );
                if !own.is_empty() {
                    assert_ne!(engine.status(&id), Some(&Status::Saved), "client {at}");
                    continue;
                }
            }
            assert_eq!(sorted(&document), heads, "the heads of client {at}");
            assert_eq!(
                Digest::of(&document).unwrap(),
                contents,
                "the contents of client {at}"
            );
            assert_eq!(engine.status(&id), Some(&Status::Saved), "client {at}");
        }
    }
}
