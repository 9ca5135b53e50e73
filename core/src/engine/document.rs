//! One document of the engine: its replica, what is on its way to storage, and what each relay
//! acknowledged.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use automerge::ChangeHash;
use bytes::Bytes;

use super::interface::{Reason, RelayId, Status};
use crate::history::Record;
use crate::id::ConnectionId;
use crate::protocol::code;
use crate::replica::{Replica, Unpacked};
use crate::storage::{Batch, DocumentKey, NewSnapshot, Refused, StorageError};

/// A change whose actor and sequence number another change has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Reused {
    /// A relay refused this change of ours.
    Change(ChangeHash),
    /// A relay sent another change with these.
    Number { actor: String, seq: u64 },
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Being read from storage.
    Loading,
    /// Not stored here: relays are asked.
    Searching,
    /// No relay has it.
    Unavailable,
    Ready,
    /// Not in memory; these are its heads, which every relay has.
    Released(Vec<ChangeHash>),
    /// Could not be read, and is read again at this time, or when somebody asks for it.
    Unread(Duration, StorageError),
    /// Cannot go on; what is stored is left as it is.
    Failed(Reason),
}

#[derive(Debug)]
pub(super) struct Document {
    pub(super) phase: Phase,
    /// The application wants its contents.
    pub(super) wanted: bool,
    /// The application found or created it, and did not let go of it.
    pub(super) held: bool,
    /// Nobody uses it, and nothing is to be done for it; if that stays so, it leaves memory then.
    pub(super) idle_until: Option<Duration>,
    /// It has a turn then to see whether it did. One is enough, however often it becomes idle.
    pub(super) idle_turn: Option<Duration>,
    /// It was released, and what is known of it is not read again with it.
    pub(super) was_released: bool,
    /// The application waits to hear whether it is there,
    pub(super) asked: bool,
    /// and goes on waiting while a relay may still be reached.
    pub(super) is_patient: bool,
    /// Apart, as most documents of a client are not in memory.
    pub(super) opened: Option<Box<Opened>>,
    /// What relays sent and was not taken in yet.
    pub(super) inbox: VecDeque<(ConnectionId, Bytes)>,
    pub(super) inbox_bytes: usize,
    /// By relay.
    pub(super) relays: Vec<SyncState>,
    pub(super) storing: Option<Box<Storing>>,
    /// What was received is being brought into the contents elsewhere, or unpacked,
    pub(super) is_settling: bool,
    /// and this is what the message has that is taken in next.
    pub(super) unpacked: Option<Unpacked>,
    /// Acknowledgements are written at this time, unless there is something to write sooner.
    pub(super) acknowledgements_due: Option<Duration>,
    /// It is in the stored outbox.
    pub(super) in_outbox: bool,
    /// Something in it makes no document: it is stored, and the document read again without it.
    pub(super) is_unsound: bool,
    /// Changes that were taken out of it.
    pub(super) quarantined: Arc<[ChangeHash]>,
    /// What was found damaged when it was read.
    pub(super) damage: Option<StorageError>,
    /// It is read again for that; whether its changes were observed.
    pub(super) reread: Option<bool>,
    /// Its history is being folded, for the time of this number.
    pub(super) folding: Option<u64>,
    /// What came of it.
    pub(super) new_snapshot: Option<Box<NewSnapshot>>,
    /// After a fold failed, the next one waits until there is this much to fold.
    pub(super) fold_from_len: u32,
    /// Messages wait until the folded part of the graph is read.
    pub(super) needs_graph: bool,
    /// Reading it failed: it is tried again at this time.
    pub(super) graph_again_at: Option<Duration>,
    /// Refusals that may be of changes which are to be made again.
    pub(super) refusals: Vec<Reused>,
    /// How often changes were made again since a relay had everything.
    pub(super) rebases: u32,
    pub(super) deleting: bool,
    pub(super) status: Option<Status>,
}

#[derive(Debug)]
pub(super) struct Opened {
    pub(super) key: DocumentKey,
    pub(super) replica: Replica,
}

/// A commit on its way.
#[derive(Debug)]
pub(super) struct Storing {
    pub(super) batch: Batch,
    /// It replaces the snapshot, and then this is the record.
    pub(super) fold: Option<Record>,
    /// It failed, and is tried again at this time.
    pub(super) again_at: Option<Duration>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct SyncState {
    /// Heads that it has on disk.
    pub(super) acknowledged: Vec<ChangeHash>,
    /// They are not stored yet.
    pub(super) dirty: bool,
    /// How this connection began to speak of the document.
    pub(super) greeted: Greeted,
    /// It said, on this connection, that nobody has the document.
    pub(super) unavailable: bool,
    /// While the document is released: it named its heads on this connection.
    pub(super) heard: bool,
    /// What it sent on this connection is not here any more: it is asked for it again.
    pub(super) reset: bool,
    /// When it is told that we have what it sent, if nothing else is to be said before.
    pub(super) acknowledge_at: Option<Duration>,
    /// It is among those that wait for room on this connection.
    pub(super) blocked: bool,
    /// What it does not take of ours. Relays say so once, so this outlives the connection and
    /// the run; it ends when the relay has everything after all.
    pub(super) refused: Option<Refused>,
    /// That is not stored yet.
    pub(super) refused_dirty: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeted {
    #[default]
    No,
    /// We asked for the document.
    Empty,
    /// We told our heads.
    Heads,
}

impl SyncState {
    pub(super) fn set_refused(&mut self, refused: Option<Refused>) {
        if self.refused != refused {
            self.refused = refused;
            self.refused_dirty = true;
        }
    }

    /// Whether it has all of what these heads stand for.
    pub(super) fn covers(&self, heads: &[ChangeHash]) -> bool {
        // A head of ours has nothing above it here, so it is covered only by itself.
        match (heads, self.acknowledged.as_slice()) {
            (ours, theirs) if ours == theirs => true,
            (ours, theirs) if ours.len() > theirs.len() => false,
            ([one], theirs) => theirs.contains(one),
            (ours, theirs) => {
                let theirs: HashSet<_> = theirs.iter().collect();
                ours.iter().all(|head| theirs.contains(head))
            }
        }
    }
}

impl Document {
    pub(super) fn new(relays: usize) -> Box<Self> {
        Box::new(Self {
            phase: Phase::Loading,
            wanted: false,
            held: false,
            idle_until: None,
            idle_turn: None,
            was_released: false,
            asked: false,
            is_patient: false,
            opened: None,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            relays: vec![SyncState::default(); relays],
            storing: None,
            is_settling: false,
            unpacked: None,
            acknowledgements_due: None,
            in_outbox: false,
            is_unsound: false,
            quarantined: Arc::default(),
            damage: None,
            reread: None,
            folding: None,
            new_snapshot: None,
            fold_from_len: 0,
            needs_graph: false,
            graph_again_at: None,
            refusals: Vec::new(),
            rebases: 0,
            deleting: false,
            status: None,
        })
    }

    /// Whether the application may edit it, once its contents are built.
    pub(super) fn is_editable(&self) -> bool {
        matches!(self.phase, Phase::Ready) && !self.deleting
    }

    /// Whether nobody has it and nobody waits for it any more, so that nothing need be remembered:
    /// whoever looks for it again begins anew.
    pub(super) fn is_nowhere(&self) -> bool {
        let nothing = |opened: &Opened| opened.replica.is_empty() && !opened.replica.has_own();
        matches!(self.phase, Phase::Unavailable)
            && !self.asked
            && !self.deleting
            && !self.in_outbox
            && self.inbox.is_empty()
            && self.storing.is_none()
            && self.quarantined.is_empty()
            && self.damage.is_none()
            && self.opened.as_deref().is_some_and(nothing)
    }

    /// Whether everything that was made or received here is in local storage.
    pub(super) fn is_stored(&self) -> bool {
        self.commits_due() == 0
    }

    /// After how many commits all that is here now is in local storage: the one that is under way, and
    /// the next, which takes all that there is.
    pub(super) fn commits_due(&self) -> u32 {
        let unsaved = |opened: &Opened| opened.replica.is_unsaved();
        u32::from(self.storing.is_some()) + u32::from(self.opened.as_deref().is_some_and(unsaved))
    }

    /// Whether this relay has acknowledged these changes.
    pub(super) fn is_acknowledged(&self, changes: &[ChangeHash], relay: &SyncState) -> bool {
        let Some(opened) = self.opened.as_ref().filter(|_| !changes.is_empty()) else {
            return false;
        };
        relay.covers(changes) || opened.replica.includes(&relay.acknowledged, changes)
    }

    /// Whether there is a relay that has everything.
    pub(super) fn is_saved(&self) -> bool {
        let Some(opened) = &self.opened else {
            return false;
        };
        let heads = opened.replica.heads();
        let all_entered = !opened.replica.has_own();
        all_entered && !heads.is_empty() && self.relays.iter().any(|relay| relay.covers(&heads))
    }

    /// Whether there is a relay that lacks something, or no relay at all.
    pub(super) fn belongs_in_outbox(&self) -> bool {
        let Some(opened) = &self.opened else {
            return self.in_outbox;
        };
        let heads = opened.replica.heads();
        let covered = |relay: &SyncState| relay.covers(&heads);
        opened.replica.has_own() || self.relays.is_empty() || !self.relays.iter().all(covered)
    }

    /// A relay's message exceeds a limit, which concerns this document alone.
    pub(super) fn not_taken(&mut self, relay: RelayId, why: &str) {
        let reason = format!("what the relay sent is not taken: {why}");
        if matches!(self.phase, Phase::Searching | Phase::Unavailable) {
            self.phase = Phase::Failed(Reason::new(code::LIMIT, reason));
            return;
        }
        self.relays[relay.0].set_refused(Some(Refused {
            code: code::LIMIT.to_owned(),
            reason,
            changes: Vec::new(),
        }));
    }

    pub(super) fn take_message(&mut self) -> Option<(ConnectionId, Bytes)> {
        let message = self.inbox.pop_front()?;
        self.inbox_bytes -= message.1.len();
        Some(message)
    }

    pub(super) fn forget_messages(&mut self, of: ConnectionId) {
        self.inbox.retain(|(from, _)| *from != of);
        self.inbox_bytes = self.inbox.iter().map(|(_, bytes)| bytes.len()).sum();
    }
}
