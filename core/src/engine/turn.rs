//! A document's turn: send what is stored, take in what came, store it, send again.
//!
//! Events only mark documents as due; what follows from them is decided here. A turn begins with
//! sending, so that a document which is edited without pause is sent without pause too: what is
//! edited while a commit is on its way waits for the next turn.

use automerge::{Change, ChangeHash};
use bytes::Bytes;

use crate::history::{NeedGraph, Record, Refusal};
use crate::id::{ConnectionId, DocumentId};
use crate::protocol::SyncMessage;
use crate::replica::{ContentsError, Incoming, Replica, Settled};
use crate::storage::{Batch, Refused, StorageError, Write, damaged};

use super::document::{Document, Greeted, MADE_AGAIN_MAX, OfRelay, Opened, Phase, Storing};
use super::fault::Fault;
use super::frame::SyncFrame;
use super::link::{Link, Relay, State};
use super::release::Released;
use super::{
    ACKNOWLEDGEMENT_DELAY, Engine, FindError, Frame, LOADS_MAX, Loaded, Output, READ_AGAIN_AFTER,
    Reading, RelayId, STORE_AGAIN_AFTER, Status,
};

/// The heads of a relay that are remembered while some of those that it names are not known.
const ACKNOWLEDGED_MAX: usize = 256;

/// Storage answers.
impl Engine {
    pub(super) fn load(&mut self, document: DocumentId, contents: Reading) {
        self.documents
            .insert(document, Document::new(self.relays.len()));
        self.counts.documents_entered += 1;
        self.read(document, contents);
    }

    /// Has a document read that is [`Phase::Loading`].
    pub(super) fn read(&mut self, document: DocumentId, contents: Reading) {
        self.loads += 1;
        self.outputs.push_back(Output::Load { document, contents });
    }

    pub(super) fn load_outbox(&mut self) {
        while self.loads < LOADS_MAX
            && let Some(document) = self.outbox_waiting.pop_front()
        {
            if self.documents.contains_key(&document) {
                self.recall(document, Reading::History);
            } else {
                self.load(document, Reading::History);
            }
        }
    }

    pub(super) fn loaded(&mut self, id: DocumentId, loaded: Result<Box<Loaded>, StorageError>) {
        self.loads = self.loads.saturating_sub(1);
        self.load_outbox();
        self.due.insert(id);
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(damage @ StorageError::Damaged { .. }) => {
                document.phase = Phase::Failed(damage.to_string());
                return;
            }
            Err(error) => {
                let again_at = self.now + READ_AGAIN_AFTER;
                document.phase = Phase::Unread(again_at, error);
                self.due.insert_at(again_at, id);
                return;
            }
        };
        document.phase = if loaded.replica.is_empty() {
            Phase::Searching
        } else {
            Phase::Ready
        };
        let recalled = std::mem::take(&mut document.was_released);
        if !recalled {
            document.in_outbox = self.outbox.contains(&id);
        }
        for (name, refused) in loaded.refused {
            if let Some(at) = self.relays.iter().position(|relay| relay.name == name) {
                // It may be of changes that were not made again yet.
                document.note_refusal(&refused.reason);
                document.relays[at].refused = Some(refused);
            }
        }
        if let Some(damage) = loaded.damage {
            document.damage = Some(damage);
            self.outputs.push_back(Output::Salvaged(id));
            for of_relay in &mut document.relays {
                // What it was told is not here any more, as far as we know.
                of_relay.acknowledged.clear();
                of_relay.reset = of_relay.greeted != Greeted::No;
                of_relay.greeted = Greeted::No;
            }
        }
        for (name, heads) in loaded.acknowledged {
            if let Some(at) = self.relays.iter().position(|relay| relay.name == name) {
                document.relays[at].acknowledged = heads;
            }
        }
        let quarantined = std::mem::replace(&mut document.quarantined, loaded.quarantined);
        let mut replica = loaded.replica;
        for (relay, of_relay) in self.relays.iter().zip(&document.relays) {
            let Some(link) = relay.link() else {
                continue;
            };
            replica.join(link.connection);
            // Whom it is told of by its first message needs no word of ours.
            if of_relay.greeted == Greeted::Heads
                && replica.resume(link.connection, of_relay.heard).is_err()
            {
                document.phase = Phase::Failed("its heads are not in its record".into());
                return;
            }
        }
        if let Some(observed) = document.reread.take() {
            if observed {
                replica.observe_anew();
            }
            self.outputs.push_back(Output::Changed(id));
            if document.quarantined.len() > quarantined.len() {
                self.outputs.push_back(Output::TakenOut(id));
            }
        }
        document.opened = Some(Opened {
            key: loaded.key,
            replica,
        });
        if document.in_outbox && !document.belongs_in_outbox() {
            // A relay that was away for a while has everything all the same.
            self.write_later(id);
        }
    }

    pub(super) fn graph_loaded(
        &mut self,
        id: DocumentId,
        segments: Result<Vec<Bytes>, StorageError>,
    ) {
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        let Some(opened) = &mut document.opened else {
            return;
        };
        self.due.insert(id);
        match segments {
            Ok(segments) if opened.replica.load_graph(&segments).is_some() => {}
            Ok(_) => document.phase = Phase::Failed("its stored graph does not fit".into()),
            Err(damage @ StorageError::Damaged { .. }) => {
                document.phase = Phase::Failed(damage.to_string());
            }
            Err(_) => {
                let again_at = self.now + READ_AGAIN_AFTER;
                document.graph_again_at = Some(again_at);
                self.due.insert_at(again_at, id);
                return;
            }
        }
        document.needs_graph = false;
    }

    pub(super) fn stored(&mut self, id: DocumentId, result: Result<(), StorageError>) {
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        self.due.insert(id);
        if let Err(error) = result {
            if let Some(storing) = &mut document.storing {
                let again_at = self.now + STORE_AGAIN_AFTER;
                storing.again_at = Some(again_at);
                self.due.insert_at(again_at, id);
            }
            self.counts.commits_failed += 1;
            self.outputs.push_back(Output::StoreFailed(id, error));
            return;
        }
        self.counts.commits += 1;
        let Some(storing) = document.storing.take() else {
            return;
        };
        if storing.batch.writes == [Write::RemoveDocument] {
            self.documents.remove(&id);
            self.counts.documents_left += 1;
            // It left the stored outbox too; found again, it must be put there anew.
            self.outbox.remove(&id);
            self.outputs.push_back(Output::Deleted(id));
            return;
        }
        if let Some(opened) = &mut document.opened {
            match storing.fold {
                Some(record) => opened.replica.folded(record),
                None => opened.replica.committed(),
            }
        }
        if document.is_stored() {
            self.outputs.push_back(Output::Flushed(id));
        }
    }
}

/// The turn.
impl Engine {
    pub(super) fn turn(&mut self, id: DocumentId) {
        let Some(mut document) = self.documents.remove(&id) else {
            return;
        };
        self.run(id, &mut document);
        self.settle_phase(id, &mut document);
        if document.asked {
            self.answer(id, &mut document);
        }
        self.set_status(id, &mut document);
        if self.release(id, &mut document) == Released::Forgotten {
            self.counts.documents_left += 1;
            return;
        }
        self.documents.insert(id, document);
    }

    /// What could not be read a while ago.
    fn read_again(&mut self, id: DocumentId, document: &mut Document) {
        if document.graph_again_at.is_some_and(|at| at <= self.now) {
            document.graph_again_at = None;
            document.needs_graph = false;
            self.ask_for_graph(id, document);
        }
        let Phase::Unread(again_at, _) = document.phase else {
            return;
        };
        let is_needed = document.wanted || !document.inbox.is_empty() || self.outbox.contains(&id);
        if again_at > self.now || !is_needed {
            return;
        }
        document.phase = Phase::Loading;
        let contents = match document.reread {
            Some(_) => Reading::Sound,
            None if document.wanted => Reading::Contents,
            None => Reading::History,
        };
        self.read(id, contents);
    }

    fn run(&mut self, id: DocumentId, document: &mut Document) {
        self.read_again(id, document);
        self.greet_released(id, document);
        let failed = matches!(document.phase, Phase::Failed(_) | Phase::Unread(..));
        let Some(opened) = &document.opened else {
            if failed && document.deleting {
                // Its place in storage is not known.
                document.deleting = false;
                let damaged = damaged(id, "it could not be read, so it is not removed");
                self.outputs.push_back(Output::StoreFailed(id, damaged));
            }
            return;
        };
        if document.wanted && !failed && !opened.replica.is_built() {
            self.settle_elsewhere(id, document);
        }
        if let Some(storing) = &mut document.storing {
            if storing.again_at.is_some_and(|at| at <= self.now) {
                storing.again_at = None;
                let batch = storing.batch.clone();
                self.outputs.push_back(Output::Store(batch));
            }
            return;
        }
        if document.is_settling {
            return;
        }
        // The answer to what was asked must not come to a document that takes this one's place.
        if document.deleting && !document.needs_graph {
            self.store(id, document, vec![Write::RemoveDocument], None);
            return;
        }
        if failed || document.deleting {
            return;
        }
        if document.is_unsound {
            self.take_in_own(id, document);
        } else {
            self.send(id, document);
            self.take_in(id, document);
        }
        if matches!(document.phase, Phase::Failed(_)) {
            return;
        }
        if !document.is_unsound && !document.is_settling {
            self.make_again(id, document);
        }
        if document.is_settling {
            return;
        }
        let writes = self.unsaved(document);
        if !writes.is_empty() {
            self.store(id, document, writes, None);
            return;
        }
        if document.is_unsound {
            if document.is_stored() && !self.is_being_read(id) {
                self.reread_sound(id, document);
            }
            return;
        }
        self.send(id, document);
        self.fold(id, document);
    }

    /// Whether something that is being sent is still to be read from storage.
    pub(super) fn is_being_read(&self, id: DocumentId) -> bool {
        let is_read = |link: &Link| link.reads.contains(&id);
        self.relays.iter().filter_map(Relay::link).any(is_read)
    }

    /// Takes in own changes; whether all of them are.
    fn take_in_own(&mut self, id: DocumentId, document: &mut Document) -> bool {
        let Some(opened) = document.opened.as_mut().filter(|_| !document.needs_graph) else {
            return false;
        };
        if opened.replica.enter_own().is_err() {
            self.ask_for_graph(id, document);
            return false;
        }
        if let Some(fault) = opened.replica.fault() {
            document.phase = Phase::Failed(format!("a change cannot be kept: {fault}"));
            return false;
        }
        true
    }

    /// Takes in own changes and messages, and brings the contents up to them, all at once.
    fn take_in(&mut self, id: DocumentId, document: &mut Document) {
        if !self.take_in_own(id, document) {
            return;
        }
        let mut needs_graph = false;
        while let Some((from, data)) = document.inbox.front() {
            let (from, Some(relay)) = (*from, self.relay_of(*from)) else {
                document.take_message();
                continue;
            };
            let Some(opened) = &mut document.opened else {
                break;
            };
            let before = opened.replica.len();
            match SyncMessage::decode(data) {
                Err(error) if error.is_of_its_document() => {
                    document.not_taken(relay, &error.to_string());
                }
                Err(_) => self.broken.push(relay),
                Ok(message) => match opened.replica.receive_at_once(
                    from,
                    &message,
                    &mut document.unpacked,
                    self.config.at_once(),
                ) {
                    Ok(Incoming::Unpack(settling)) => {
                        document.is_settling = true;
                        self.outputs
                            .push_back(Output::Settle(id, Box::new(settling)));
                        return;
                    }
                    Ok(Incoming::Received(received)) => {
                        let new = opened.replica.len().saturating_sub(before);
                        self.counts.changes_received += u64::from(new);
                        for (_, refusal) in &received.refused {
                            if matches!(refusal, Refusal::ActorReused { .. }) {
                                document.note_refusal(&refusal.to_string());
                            }
                        }
                        self.note_acknowledged(id, document, relay, from);
                    }
                    Err(NeedGraph) => {
                        needs_graph = true;
                        break;
                    }
                },
            }
            document.take_message();
        }
        document.unpacked = None;
        let Some(opened) = &mut document.opened else {
            return;
        };
        match opened.replica.settle_at_once(self.config.at_once()) {
            Some(settled) => self.note_settled(id, document, &settled),
            None => self.settle_elsewhere(id, document),
        }
        if needs_graph && !document.is_unsound {
            self.ask_for_graph(id, document);
        }
    }

    /// Brings the contents up to what was received where it may take long. The document's turn comes
    /// when that is done.
    fn settle_elsewhere(&mut self, id: DocumentId, document: &mut Document) {
        let Some(opened) = document.opened.as_mut().filter(|_| !document.is_settling) else {
            return;
        };
        let replica = &mut opened.replica;
        if self.config.at_once() == usize::MAX {
            let settled = match replica.is_built() {
                true => replica.settle(),
                false => replica.build().map(|()| false),
            };
            self.note_settled(id, document, &settled);
            self.due.insert(id);
        } else {
            let settling = Box::new(replica.begin_settling());
            document.is_settling = true;
            self.outputs.push_back(Output::Settle(id, settling));
        }
    }

    fn note_settled(
        &mut self,
        id: DocumentId,
        document: &mut Document,
        settled: &Result<bool, ContentsError>,
    ) {
        match settled {
            Ok(true) => self.outputs.push_back(Output::Changed(id)),
            Ok(false) => {}
            Err(_) if matches!(document.phase, Phase::Failed(_)) => {}
            Err(_) => {
                // Nobody reads or edits what Automerge left half done.
                document.phase = Phase::Loading;
                document.is_unsound = true;
            }
        }
    }

    /// Takes what came of [`Output::Settle`].
    pub fn settled(&mut self, id: DocumentId, settled: Settled<'_>) {
        let Some(mut document) = self.documents.remove(&id) else {
            return;
        };
        if let Some(opened) = document.opened.as_mut().filter(|_| document.is_settling) {
            document.is_settling = false;
            let (unpacked, settled) = opened.replica.settled(settled);
            document.unpacked = unpacked;
            self.note_settled(id, &mut document, &settled);
        }
        self.documents.insert(id, document);
        self.due.insert(id);
    }

    /// Makes changes again that no relay can take, because another change has their actor and
    /// sequence number: a relay said so of ours, or sent the other one.
    fn make_again(&mut self, id: DocumentId, document: &mut Document) {
        let wait = document.needs_graph || self.is_being_read(id);
        let Some(opened) = &mut document.opened else {
            return;
        };
        if document.refusals.is_empty() || wait {
            return;
        }
        if !opened.replica.is_built() {
            self.settle_elsewhere(id, document);
            return;
        }
        let refusals = std::mem::take(&mut document.refusals);
        let acknowledged = document.relays.iter().flat_map(|relay| &relay.acknowledged);
        let acknowledged: Vec<ChangeHash> = acknowledged.copied().collect();
        let is_refused = |change: &Change| {
            let reused = Refusal::ActorReused {
                actor: change.actor_id().to_hex_string(),
                seq: change.seq(),
            };
            refusals.contains(&reused.to_string())
        };
        match opened.replica.make_again(&acknowledged, is_refused) {
            None => {
                document.refusals = refusals;
                // Whoever is in the way is waited for.
                self.settle_elsewhere(id, document);
                return;
            }
            Some(Ok(true)) => {}
            Some(Ok(false)) => return,
            Some(Err(_)) => {
                // The relay's word stands.
                document.made_again = MADE_AGAIN_MAX;
                return;
            }
        }
        document.folding = None;
        document.new_snapshot = None;
        document.made_again += 1;
        document.in_outbox = false;
        let replica = &mut opened.replica;
        for (relay, of_relay) in self.relays.iter().zip(&mut document.relays) {
            of_relay.dirty = !of_relay.acknowledged.is_empty();
            let stands = |hash: &ChangeHash| replica.knows(hash);
            let gone = |refused: &Refused| {
                !refused.changes.is_empty() && !refused.changes.iter().any(stands)
            };
            if of_relay.refused.as_ref().is_some_and(gone) {
                of_relay.refused = None;
            }
            of_relay.refused_dirty = of_relay.refused.is_some();
            if let Some(link) = relay.link() {
                replica.join(link.connection);
                of_relay.reset = of_relay.greeted != Greeted::No;
                of_relay.greeted = Greeted::No;
            }
        }
        self.outputs.push_back(Output::Changed(id));
    }

    fn ask_for_graph(&mut self, id: DocumentId, document: &mut Document) {
        let Some(opened) = &document.opened else {
            return;
        };
        // An adopted chunk brings a part of the graph, which is not there before it is stored; the
        // turn after that comes here again.
        if document.needs_graph || !opened.replica.is_sendable() {
            return;
        }
        document.needs_graph = true;
        self.outputs.push_back(Output::LoadGraph {
            document: id,
            key: opened.key,
            segments: opened.replica.record().segments,
        });
    }

    /// Takes the heads that a relay names as what it has on disk.
    fn note_acknowledged(
        &mut self,
        id: DocumentId,
        document: &mut Document,
        relay: RelayId,
        from: ConnectionId,
    ) {
        let Some(replica) = document.opened.as_ref().map(|opened| &opened.replica) else {
            return;
        };
        let Some((named, all_known)) = replica.acknowledged(from) else {
            return;
        };
        let of_relay = &mut document.relays[relay.0];
        if of_relay.acknowledged == named {
            return;
        }
        let mut acknowledged = named.to_vec();
        if !all_known {
            // What it named before lies below what it names now, as far as we can tell.
            acknowledged.retain(|head| replica.knows(head));
            let before = of_relay.acknowledged.iter().copied();
            acknowledged.extend(before.take(ACKNOWLEDGED_MAX));
            acknowledged.sort_unstable();
            acknowledged.dedup();
        }
        if of_relay.acknowledged == acknowledged {
            return;
        }
        of_relay.acknowledged = acknowledged;
        of_relay.dirty = true;
        if of_relay.covers(&replica.heads()) {
            of_relay.set_refused(None);
        }
        self.write_soon(id, document);
    }

    /// What relays say of a document is written a while after it was said.
    fn write_soon(&mut self, id: DocumentId, document: &mut Document) {
        if document.acknowledgements_due.is_none() {
            let due = self.now + ACKNOWLEDGEMENT_DELAY;
            document.acknowledgements_due = Some(due);
            self.due.insert_at(due, id);
        }
    }

    pub(super) fn write_later(&mut self, id: DocumentId) {
        if let Some(mut document) = self.documents.remove(&id) {
            self.write_soon(id, &mut document);
            self.documents.insert(id, document);
        }
    }

    /// What must be written now: new changes, and with them or after a while what relays
    /// acknowledged.
    fn unsaved(&self, document: &mut Document) -> Vec<Write> {
        let Some(opened) = &mut document.opened else {
            return Vec::new();
        };
        let mut writes = opened.replica.take_unsaved().unwrap_or_default();
        let due = document
            .acknowledgements_due
            .is_some_and(|due| due <= self.now);
        let never_stored = opened.replica.durable_heads().is_empty();
        if writes.is_empty() && (!due || never_stored) {
            return writes;
        }
        document.acknowledgements_due = None;
        for (relay, of_relay) in self.relays.iter().zip(&mut document.relays) {
            if std::mem::take(&mut of_relay.dirty) {
                writes.push(Write::Acknowledged {
                    relay: relay.name.clone(),
                    heads: of_relay.acknowledged.clone(),
                });
            }
            if std::mem::take(&mut of_relay.refused_dirty) {
                writes.push(Write::Refused {
                    relay: relay.name.clone(),
                    refused: of_relay.refused.clone(),
                });
            }
        }
        let belongs = document.belongs_in_outbox();
        if belongs != document.in_outbox {
            document.in_outbox = belongs;
            writes.push(Write::Outbox(belongs));
        }
        writes
    }

    pub(super) fn store(
        &mut self,
        id: DocumentId,
        document: &mut Document,
        writes: Vec<Write>,
        fold: Option<Record>,
    ) {
        let Some(opened) = &document.opened else {
            return;
        };
        let batch = Batch {
            document: id,
            key: opened.key,
            writes,
        };
        self.outputs.push_back(Output::Store(batch.clone()));
        document.storing = Some(Storing {
            batch,
            fold,
            again_at: None,
        });
    }

    /// Sends every relay what it should have and has room for.
    fn send(&mut self, id: DocumentId, document: &mut Document) {
        let searching = matches!(document.phase, Phase::Searching | Phase::Unavailable);
        let Some(Opened { key, replica }) = &mut document.opened else {
            return;
        };
        if !replica.is_sendable() {
            return;
        }
        let mut needs_graph = false;
        for (relay, of_relay) in self.relays.iter_mut().zip(&mut document.relays) {
            let Some(link) = relay.link_mut() else {
                continue;
            };
            let connection = link.connection;
            loop {
                let stored = !replica.durable_heads().is_empty();
                // It was asked for the document, did not have it, and does not know that we do.
                let offer = of_relay.greeted == Greeted::Empty
                    && of_relay.unavailable
                    && stored
                    && replica.acknowledged(connection).is_none();
                let begin = of_relay.greeted == Greeted::No
                    && (stored || (searching && replica.is_empty()));
                if !(begin || offer || replica.has_news(connection)) {
                    break;
                }
                #[cfg(feature = "planted")]
                if !link.has_room() && crate::planted::is(crate::planted::Bug::DropOnFullQueue) {
                    break;
                }
                if !link.has_room_for(id, of_relay) {
                    break;
                }
                let sent = if begin || offer {
                    replica.join(connection);
                    let greeting = replica.greet(connection, &of_relay.acknowledged);
                    greeting.map(|outgoing| Some((outgoing, Vec::new())))
                } else {
                    Ok(replica.poll_send(connection))
                };
                let (mut outgoing, pieces) = match sent {
                    Ok(Some(sent)) => sent,
                    Ok(None) => break,
                    Err(NeedGraph) => {
                        needs_graph = true;
                        break;
                    }
                };
                if begin && std::mem::take(&mut of_relay.reset) {
                    let flags = outgoing.flags.as_mut().expect("a greeting has flags");
                    flags.sync_reset = true;
                }
                if begin || offer {
                    of_relay.greeted = if stored {
                        Greeted::Heads
                    } else {
                        Greeted::Empty
                    };
                }
                let frame = Frame::sync(SyncFrame {
                    sender: self.config.peer.clone(),
                    target: link.peer.clone(),
                    document: id,
                    key: *key,
                    outgoing,
                    pieces,
                });
                link.in_flight += 1;
                link.reads.extend(frame.reads());
                self.outputs.push_back(Output::Send(connection, frame));
            }
        }
        if needs_graph {
            self.ask_for_graph(id, document);
        }
    }
}

/// What the application hears.
impl Engine {
    /// Whether a document that was searched for is there, or cannot be had.
    fn settle_phase(&mut self, id: DocumentId, document: &mut Document) {
        if !matches!(document.phase, Phase::Searching | Phase::Unavailable) || document.is_settling
        {
            return;
        }
        let Some(replica) = document.opened.as_ref().map(|opened| &opened.replica) else {
            return;
        };
        if !replica.is_empty() {
            if is_whole(replica, &self.relays) {
                document.phase = Phase::Ready;
                self.outputs.push_back(Output::Added(id));
            }
            return;
        }
        let gave_up = |(relay, unavailable): (&Relay, bool)| unavailable || relay.is_out_of_reach();
        let unavailable = document.relays.iter().map(|relay| relay.unavailable);
        // One that came back may have it.
        document.phase = if self.relays.iter().zip(unavailable).all(gave_up) {
            Phase::Unavailable
        } else {
            Phase::Searching
        };
    }

    fn answer(&mut self, id: DocumentId, document: &mut Document) {
        #[cfg(feature = "planted")]
        let is_settling =
            document.is_settling && !crate::planted::is(crate::planted::Bug::FoundBeforeItShows);
        #[cfg(not(feature = "planted"))]
        let is_settling = document.is_settling;
        if is_settling && !document.deleting {
            return;
        }
        let answer = match &document.phase {
            _ if document.deleting => Err(FindError::Deleted),
            Phase::Ready => Ok(()),
            Phase::Unavailable => match self.unreached(document) {
                None => Err(FindError::Unavailable),
                Some(_) if document.is_patient && self.may_be_reached(document) => return,
                Some(fault) => Err(FindError::Unreachable(fault)),
            },
            Phase::Unread(_, error) => Err(FindError::Storage(error.clone())),
            Phase::Failed(reason) => Err(FindError::Damaged(reason.clone())),
            Phase::Loading | Phase::Searching | Phase::Released(_) => return,
        };
        document.asked = false;
        document.is_patient = false;
        self.counts.searches_ended += 1;
        self.outputs.push_back(Output::Found(id, answer));
    }

    /// Why a relay did not say whether it has a document; `None` if all did.
    pub(super) fn unreached(&self, document: &Document) -> Option<Fault> {
        let (relay, _) = self.unasked(document).next()?;
        Some(relay.why_unreached())
    }

    /// Whether one of those will be tried again.
    fn may_be_reached(&self, document: &Document) -> bool {
        let is_refused = |relay: &Relay| matches!(relay.state, State::Refused(_));
        self.unasked(document).any(|(relay, _)| !is_refused(relay))
    }

    /// The relays that are not connected and did not say whether they have a document.
    fn unasked<'a>(
        &'a self,
        document: &'a Document,
    ) -> impl Iterator<Item = (&'a Relay, &'a OfRelay)> {
        let relays = self.relays.iter().zip(&document.relays);
        relays.filter(|(relay, of_relay)| {
            !relay.is_away() && !of_relay.unavailable && relay.link().is_none()
        })
    }

    pub(super) fn update_status(&mut self, id: DocumentId) {
        if let Some(mut document) = self.documents.remove(&id) {
            self.set_status(id, &mut document);
            self.documents.insert(id, document);
        }
    }

    fn set_status(&mut self, id: DocumentId, document: &mut Document) {
        let status = match &document.phase {
            Phase::Unread(_, error) => Status::Refused(error.to_string()),
            Phase::Failed(reason) => Status::Refused(reason.clone()),
            Phase::Ready => self.status_of(document),
            Phase::Loading | Phase::Searching | Phase::Unavailable | Phase::Released(_) => return,
        };
        if status == Status::Saved {
            document.made_again = 0;
        }
        if document.status.as_ref() != Some(&status) {
            document.status = Some(status.clone());
            self.outputs.push_back(Output::Status(id, status));
        }
    }

    fn status_of(&self, document: &Document) -> Status {
        if document.is_saved() {
            return Status::Saved;
        }
        let Some(replica) = document.opened.as_ref().map(|opened| &opened.replica) else {
            return Status::Offline;
        };
        let mut links = self.relays.iter().filter_map(Relay::link);
        if !document.refusals.is_empty() && links.next().is_some() {
            // What is refused may be made again.
            return Status::Saving;
        }
        let (mut reason, mut hope) = (None, false);
        for (relay, of_relay) in self.relays.iter().zip(&document.relays) {
            match &relay.state {
                State::Away => {}
                State::Refused(why) => reason = Some(why.clone()),
                _ if let Some(refused) = &of_relay.refused => {
                    reason = Some(refused.reason.clone());
                }
                State::Open(link) if replica.is_refused_by(link.connection) => {
                    reason = Some("the relay takes no changes from us".to_owned());
                }
                State::Open(_) => return Status::Saving,
                State::Waiting(_) | State::Connecting { .. } => hope = true,
            }
        }
        match reason {
            Some(reason) if !hope => Status::Refused(reason),
            _ => Status::Offline,
        }
    }
}

/// Whether all that some relay named is here, or no relay is there to send the rest.
fn is_whole(replica: &Replica, relays: &[Relay]) -> bool {
    let mut links = relays.iter().filter_map(Relay::link).peekable();
    let whole = |link: &Link| {
        let named = replica.acknowledged(link.connection);
        named.is_some_and(|(heads, all_known)| all_known && !heads.is_empty())
    };
    links.peek().is_none() || links.any(whole)
}
