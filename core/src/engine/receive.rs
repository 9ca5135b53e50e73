//! The part of a turn that takes in: own changes, and the messages that wait.

use super::Engine;
use super::document::{Document, Phase, Reused};
use super::interface::{Output, Reason, RelayId};
use crate::history::{NeedGraph, Refusal};
use crate::id::{ConnectionId, DocumentId};
use crate::protocol::SyncMessage;
use crate::replica::Incoming;

/// The heads of a relay that are remembered while some of those that it names are not known.
const ACKNOWLEDGED_MAX: usize = 256;

impl Engine {
    /// Takes in own changes; whether all of them are.
    pub(super) fn take_in_own(&mut self, id: DocumentId, document: &mut Document) -> bool {
        let Some(opened) = document.opened.as_mut().filter(|_| !document.needs_graph) else {
            return false;
        };
        if opened.replica.enter_own().is_err() {
            self.ask_for_graph(id, document);
            return false;
        }
        if let Some(fault) = opened.replica.fault() {
            document.phase = Phase::Failed(Reason::new(
                "damaged",
                format!("a change cannot be kept: {fault}"),
            ));
            return false;
        }
        true
    }

    /// Takes in own changes and messages, and brings the contents up to them, all at once.
    pub(super) fn take_in(&mut self, id: DocumentId, document: &mut Document) {
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
                            if let Refusal::ActorReused { actor, seq } = refusal {
                                document.note_reused(Reused::Number {
                                    actor: actor.clone(),
                                    seq: *seq,
                                });
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
}
