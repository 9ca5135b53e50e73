//! A history that acts as a client: it speaks first, and reads what the other side acknowledged.

use automerge::ChangeHash;

use super::History;
use super::graph::NeedGraph;
use super::outgoing::Outgoing;
use super::peer::Certainty;
use crate::id::ConnectionId;

impl History {
    /// The first message to a peer that joined and waits for us to speak, as if it were sent.
    /// `acknowledged` are heads that the peer is known to have stored; those that are known here
    /// make a filter unnecessary. Otherwise a filter covers everything.
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and call again.
    pub fn greet(
        &mut self,
        to: ConnectionId,
        acknowledged: &[ChangeHash],
    ) -> Result<Outgoing, NeedGraph> {
        let mut last_sync = Vec::with_capacity(acknowledged.len());
        for hash in acknowledged {
            if self.known(hash)?.is_some() {
                last_sync.push(*hash);
            }
        }
        last_sync.sort_unstable();
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::LastSyncBeyond) {
            last_sync = self.durable_heads.to_vec();
        }
        let hashes = if last_sync.is_empty() {
            let durable = 0..self.durable_len;
            durable
                .map(|index| self.graph.hash(index))
                .collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let heads = self.durable_heads.clone();
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.told = Some(heads.clone());
            // Servers of this protocol are younger than document chunks, and ours invite some only
            // when it pays. Nor do they show anything.
            peer.takes_documents = true;
            peer.waits_for_all = true;
        }
        Ok(Outgoing::greeting(heads, last_sync, hashes))
    }

    /// The heads that a peer last named, and whether all of them are known here. `None` before it
    /// named any.
    #[must_use]
    pub fn acknowledged(&self, by: ConnectionId) -> Option<(&[ChangeHash], bool)> {
        let peer = self.peers.get(&by)?;
        let spoke = peer.certainty != Certainty::Unheard;
        let known = |head| matches!(self.known(head), Ok(Some(_)));
        spoke.then(|| (&*peer.heads, peer.heads.iter().all(known)))
    }

    /// Whether a peer said that it takes no changes from us.
    #[must_use]
    pub fn is_refused_by(&self, peer: ConnectionId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.publishes_only)
    }
}
