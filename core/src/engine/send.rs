//! The part of a turn that sends, to every relay what it should have and has room for.

use std::time::Duration;

use super::Engine;
use super::document::{Document, Greeted, Opened, Phase};
use super::frame::{Frame, SyncFrame};
use super::interface::Output;
use crate::history::NeedGraph;
use crate::id::DocumentId;

/// How long a relay waits to be told that what it sent is here. It has no use for that but to tell
/// others who ask, and while somebody types, one answer stands for many: half of what it costs the
/// relay to pass on an edit is to read the answer.
pub(super) const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(500);

impl Engine {
    /// Sends every relay what it should have and has room for.
    pub(super) fn send(&mut self, id: DocumentId, document: &mut Document) {
        let searching = matches!(document.phase, Phase::Searching | Phase::Unavailable);
        let Some(Opened { key, replica }) = document.opened.as_deref_mut() else {
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
                if !(begin || offer) && replica.only_acknowledges(connection) {
                    let at = self.now + ACKNOWLEDGE_AFTER;
                    let at = *of_relay.acknowledge_at.get_or_insert(at);
                    if self.now < at {
                        self.due.insert_at(at, id);
                        break;
                    }
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
                of_relay.acknowledge_at = None;
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
