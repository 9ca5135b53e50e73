//! Presence: messages among those who have a document open. Nothing of them is kept.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::Engine;
use super::frame::Frame;
use super::interface::Output;
use super::link::{Link, PRESENCE_MAX};
use crate::id::{DocumentId, PeerId};
use crate::protocol;
use crate::protocol::{Ephemeral, Message};

/// Most authors of presence messages that are remembered, so that one that comes by two relays is
/// heard once.
pub const AUTHORS_MAX: usize = 1024;

/// What was said and heard in this run.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// How many messages were sent.
    sent: u64,
    /// The last count of each author's run, and the authors in the order in which they came.
    heard: HashMap<(PeerId, String), u64>,
    authors: VecDeque<(PeerId, String)>,
}

impl Presence {
    /// The number of the next message.
    fn next(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Whether an author's message of this number is new: it may come by several relays.
    fn is_new(&mut self, sender: &PeerId, session: &str, number: u64) -> bool {
        let author = (sender.clone(), session.to_owned());
        match self.heard.get_mut(&author) {
            Some(last) if *last >= number => return false,
            Some(last) => *last = number,
            None => {
                self.authors.push_back(author.clone());
                self.heard.insert(author, number);
                if self.authors.len() > AUTHORS_MAX
                    && let Some(oldest) = self.authors.pop_front()
                {
                    self.heard.remove(&oldest);
                }
            }
        }
        true
    }
}

impl Engine {
    /// Sends a message to all who have the document open, now or never. Nothing is kept; `data` is
    /// passed on as it is, and is CBOR among automerge-repo clients.
    pub fn broadcast(&mut self, document: &DocumentId, data: &[u8]) {
        let count = self.presence.next();
        let name = document.to_string();
        for relay in &mut self.relays {
            let Some(link) = relay.link_mut() else {
                continue;
            };
            link.presence
                .push_back(protocol::encode(&Message::Ephemeral(Ephemeral {
                    sender: self.config.peer.as_str(),
                    target: link.peer.as_str(),
                    document: name.as_str().into(),
                    count,
                    session: &self.config.session,
                    data,
                })));
            if link.presence.len() > PRESENCE_MAX {
                link.presence.pop_front();
            }
            send_presence(link, &mut self.outputs);
        }
    }

    pub(super) fn ephemeral(&mut self, frame: &Bytes, ephemeral: &Ephemeral<'_>) {
        let (Ok(document), Some(sender)) = (
            ephemeral.document.parse::<DocumentId>(),
            PeerId::new(ephemeral.sender),
        ) else {
            return;
        };
        let (session, number) = (ephemeral.session, ephemeral.count);
        if self.presence.is_new(&sender, session, number) && self.documents.contains_key(&document)
        {
            self.outputs.push_back(Output::Ephemeral {
                document,
                sender,
                data: frame.slice_ref(ephemeral.data),
            });
        }
    }
}

/// Hands presence to the shell while there is room.
pub(super) fn send_presence(link: &mut Link, outputs: &mut VecDeque<Output>) {
    while link.has_room()
        && let Some(frame) = link.presence.pop_front()
    {
        link.in_flight += 1;
        outputs.push_back(Output::Send(link.connection, Frame::whole(frame)));
    }
}
