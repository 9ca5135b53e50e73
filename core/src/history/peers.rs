//! The peers of a history: they join and leave, and go over to the history that replaces this one.

use std::collections::HashMap;
use std::sync::Arc;

use automerge::ChangeHash;

use super::History;
use super::peer::{AtRest, Certainty, Peer};
use crate::id::{Access, ConnectionId};

impl History {
    /// Begins to serve a peer, which has not spoken of this document yet.
    pub fn join(&mut self, peer: ConnectionId, access: Access) {
        self.peers.entry(peer).or_default().access = Some(access);
        self.weigh(peer);
    }

    /// A peer that joined shows nothing of a document before it has all that was named. So it is sent
    /// a large one in parts, and keeps those that came when its connection is cut.
    pub fn waits_for_all(&mut self, peer: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.waits_for_all = true;
        }
    }

    /// Forgets a peer, and the changes of it alone that wait for others: they were not acknowledged.
    /// (In a browser those stay.)
    pub fn leave(&mut self, peer: ConnectionId) {
        if let Some(left) = self.peers.remove(&peer) {
            self.weights.left(&left);
        }
        self.orphans.leave(peer);
    }

    /// The peers that joined.
    pub fn peers(&self) -> impl Iterator<Item = ConnectionId> {
        self.peers.keys().copied()
    }

    /// The heads that a peer last named.
    #[must_use]
    pub fn peer_heads(&self, peer: ConnectionId) -> &[ChangeHash] {
        self.peers.get(&peer).map_or(&[], |peer| &peer.heads)
    }

    /// Whether a peer's changes are taken in.
    #[must_use]
    pub fn takes_from(&self, peer: ConnectionId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.writes())
    }

    /// Asks everybody who writes for what was not kept of what they sent.
    pub fn ask_again(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.ask_again());
    }

    /// Asks a peer for nothing that it named: it could not be stored.
    pub fn ask_nothing(&mut self, peer: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.need.clear();
        }
    }

    /// What a peer uploaded was refused: nothing more is expected of what it announced.
    pub fn upload_refused(&mut self, from: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heads = Arc::default();
        }
    }

    /// Whether a peer announced changes of a document that nobody else has: an upload is coming.
    #[must_use]
    pub fn upload_expected(&self) -> bool {
        self.is_empty()
            && self
                .peers
                .values()
                .any(|p| p.writes() && !p.heads.is_empty())
    }

    /// Takes the peers out, to be put into the history that replaces this one. What they are
    /// believed to have stays; whose changes waited here for others is asked for them again.
    #[must_use]
    pub fn into_peers(self) -> Peers {
        let orphaned = self.orphans.senders();
        self.peers_asked_again(|id| orphaned.contains(&id))
    }

    /// The same after a commit failed. Nobody is asked for what was not kept before the next history
    /// is told to [ask again](Self::ask_again): to store it would fail as well.
    #[must_use]
    pub fn into_peers_after_failure(self) -> Peers {
        self.peers_asked_again(|_| false)
    }

    fn peers_asked_again(self, asked_again: impl Fn(ConnectionId) -> bool) -> Peers {
        let durable_len = self.durable_len;
        let mut peers = self.peers;
        for (id, peer) in &mut peers {
            peer.extra.keep_below(durable_len);
            peer.resent.retain(|index| *index < durable_len);
            if asked_again(*id) {
                peer.ask_again();
            }
        }
        Peers(peers)
    }

    /// Puts in the peers of the history that this one replaces.
    pub fn set_peers(&mut self, peers: Peers) {
        let mut peers = peers.0;
        for peer in peers.values_mut() {
            peer.upto = peer.upto.min(self.graph.len());
            peer.lacks.keep_below(peer.upto);
            if peer.certainty == Certainty::Exact {
                // What it named and was not known may be stored by now.
                let heads = peer.heads.iter();
                let known: Vec<_> = heads.filter_map(|hash| self.graph.resident(hash)).collect();
                let above = self.above(&known, peer);
                peer.has_also(&above);
            }
        }
        self.peers = peers;
        self.weigh_all();
    }
}

/// The peers of a history, between two histories. See [`History::into_peers`].
#[derive(Debug, Default)]
pub struct Peers(pub(super) HashMap<ConnectionId, Box<Peer>>);

impl Peers {
    /// What is to be remembered of them, if that is little of each.
    #[must_use]
    pub fn at_rest(&self) -> Option<Vec<(ConnectionId, AtRest)>> {
        let peers = self.0.iter();
        peers
            .map(|(id, peer)| Some((*id, AtRest::of(peer)?)))
            .collect()
    }

    /// They as they were.
    pub fn awoken(rest: impl IntoIterator<Item = (ConnectionId, AtRest)>) -> Self {
        let peer = |(id, rest): (ConnectionId, AtRest)| (id, Box::new(rest.into_peer()));
        Self(rest.into_iter().map(peer).collect())
    }

    /// Forgets a peer.
    pub fn leave(&mut self, peer: ConnectionId) {
        self.0.remove(&peer);
    }

    /// The peers of a document that lost changes and begins anew: what each has is not known any
    /// more, and who writes is asked for everything.
    #[must_use]
    pub fn begun_anew(self) -> Self {
        let anew = |peer: &Peer| Peer {
            access: peer.access,
            certainty: match peer.certainty {
                Certainty::Unheard => Certainty::Unheard,
                _ => Certainty::Filtered(Vec::new()),
            },
            heads: peer.heads.clone(),
            refused: peer.refused.clone(),
            reset: peer.writes() && peer.certainty != Certainty::Unheard,
            resends: peer.resends,
            supports_reset: peer.supports_reset,
            publishes_only: peer.publishes_only,
            // It may have all of it, and then a document chunk is the shortest way.
            invite_document: true,
            ..Peer::default()
        };
        let peers = self.0.into_iter();
        Self(
            peers
                .map(|(id, peer)| (id, Box::new(anew(&peer))))
                .collect(),
        )
    }
}
