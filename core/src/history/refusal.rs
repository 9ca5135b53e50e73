//! Why changes are refused, and those of a document that were, so that nobody is asked for them again.

use std::collections::{HashMap, VecDeque};

use automerge::ChangeHash;

use super::change::ChangeError;
use super::limits::REFUSED_MAX;
use crate::protocol::code;

/// Why a change was not taken. The peer that sent it must act; sending it again does not help,
/// except where said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Its bytes are not a change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Automerge itself cannot read it.
    #[error("automerge cannot read it: {0}")]
    Automerge(String),
    /// Another change of this actor has this sequence number, or the one before is not in its past.
    #[error("actor {actor} forked at seq {seq}: make the change again under a new actor id")]
    ActorReused {
        /// The actor, in hexadecimal.
        actor: String,
        /// The change's sequence number.
        seq: u64,
    },
    /// Its sequence number skips some.
    #[error("seq {found} of actor {actor} does not follow {last}")]
    Sequence {
        /// The actor, in hexadecimal.
        actor: String,
        /// The last known sequence number.
        last: u64,
        /// The change's.
        found: u64,
    },
    /// Its first operation is not above all operations it depends on.
    #[error("start_op {found} is not above {max_op}, the last operation that it depends on")]
    StartOp {
        /// The change's `start_op`.
        found: u64,
        /// The highest counter among its deps.
        max_op: u32,
    },
    /// It uses an operation that does not exist in its past.
    #[error("refers to operation {0}, which does not exist in its past")]
    UnknownOperation(String),
    /// It acts on an object that does not exist in its past.
    #[error("acts on object {0}, which does not exist in its past")]
    UnknownObject(String),
    /// It uses a list as a map or the other way round.
    #[error("uses {0} as another kind of object than it is")]
    ObjectKind(String),
    /// An operation that Automerge does not know, or that makes no sense.
    #[error("operation without sense: {0}")]
    Operation(&'static str),
    /// Together with its past it makes no document, which only building that document shows.
    #[error("its contents make no document: {0}")]
    Unsound(String),
    /// It had to be checked before it is stored, and the check could not be run. The relay's
    /// operator must act; it may be sent again then.
    #[error("it could not be checked, which is no fault of its own: {0}")]
    Unchecked(String),
    /// The changes of a message have too many operations, and some were left out. They may be sent
    /// again.
    #[error(
        "the changes of one message have more operations than it may have: send them in several"
    )]
    MessageOperations,
    /// It depends on a change that was refused.
    #[error("depends on the refused change {0}")]
    DependsOnRefused(ChangeHash),
    /// The document has reached a limit.
    #[error("the document has reached its limit of {0}")]
    DocumentFull(&'static str),
    /// The peer may read the document only. It may send it again when it may write.
    #[error("the peer has read access only")]
    ReadOnly,
    /// A kind of chunk that is not taken.
    #[error("bundle chunks are not taken: older clients cannot read them")]
    Bundle,
}

/// Most bytes of what Automerge says of a change that it cannot read.
const REASON_BYTES_MAX: usize = 256;

impl Refusal {
    /// Every code, for those who list them.
    pub const CODES: [&str; 17] = [
        "malformed",
        "unreadable",
        code::ACTOR_REUSED,
        "sequence",
        "start_op",
        "unknown_operation",
        "unknown_object",
        "object_kind",
        "operation",
        code::UNSOUND,
        "unchecked",
        "message_operations",
        "depends_on_refused",
        "document_full",
        code::READ_ONLY,
        "bundle",
        code::LIMIT,
    ];

    /// A name for programs, which stays the same.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Change(_) => "malformed",
            Self::Automerge(_) => "unreadable",
            Self::ActorReused { .. } => code::ACTOR_REUSED,
            Self::Sequence { .. } => "sequence",
            Self::StartOp { .. } => "start_op",
            Self::UnknownOperation(_) => "unknown_operation",
            Self::UnknownObject(_) => "unknown_object",
            Self::ObjectKind(_) => "object_kind",
            Self::Operation(_) => "operation",
            Self::Unsound(_) => code::UNSOUND,
            Self::Unchecked(_) => "unchecked",
            Self::MessageOperations => "message_operations",
            Self::DependsOnRefused(_) => "depends_on_refused",
            Self::DocumentFull(_) => "document_full",
            Self::ReadOnly => code::READ_ONLY,
            Self::Bundle => "bundle",
        }
    }

    pub(crate) fn by_automerge(error: &impl ToString) -> Self {
        let mut why = error.to_string();
        why.truncate(why.floor_char_boundary(REASON_BYTES_MAX));
        Self::Automerge(why)
    }
}

#[cfg(feature = "native")]
impl Refusal {
    /// Bytes that it holds beside itself.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Automerge(text)
            | Self::ActorReused { actor: text, .. }
            | Self::Sequence { actor: text, .. }
            | Self::UnknownOperation(text)
            | Self::UnknownObject(text)
            | Self::ObjectKind(text)
            | Self::Unsound(text)
            | Self::Unchecked(text) => text.capacity(),
            Self::Change(_)
            | Self::StartOp { .. }
            | Self::Operation(_)
            | Self::MessageOperations
            | Self::DependsOnRefused(_)
            | Self::DocumentFull(_)
            | Self::ReadOnly
            | Self::Bundle => 0,
        }
    }
}

/// Refusals with the same code together: the first of them, and the hashes of all.
#[must_use]
pub fn by_code(refused: &[(Option<ChangeHash>, Refusal)]) -> Vec<(&Refusal, Vec<ChangeHash>)> {
    let mut groups: Vec<(&Refusal, Vec<ChangeHash>)> = Vec::new();
    for (hash, refusal) in refused {
        let of_code = |(first, _): &(&Refusal, _)| first.code() == refusal.code();
        match groups.iter_mut().find(|group| of_code(group)) {
            Some((_, hashes)) => hashes.extend(hash),
            None => groups.push((refusal, hash.iter().copied().collect())),
        }
    }
    groups
}

/// Why changes were refused, by their hashes; the oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct RefusedSet {
    reasons: HashMap<ChangeHash, Refusal>,
    order: VecDeque<ChangeHash>,
    /// Bytes of the reasons' texts.
    #[cfg(feature = "native")]
    texts: usize,
}

impl RefusedSet {
    pub(super) fn contains(&self, hash: &ChangeHash) -> bool {
        self.reasons.contains_key(hash)
    }

    pub(super) fn get(&self, hash: &ChangeHash) -> Option<&Refusal> {
        self.reasons.get(hash)
    }

    /// All of them, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ChangeHash, &Refusal)> {
        self.order.iter().map(|hash| (hash, &self.reasons[hash]))
    }

    pub(super) fn insert(&mut self, hash: ChangeHash, refusal: Refusal) {
        self.weigh(&refusal, usize::saturating_add);
        match self.reasons.insert(hash, refusal) {
            None => self.order.push_back(hash),
            Some(before) => self.weigh(&before, usize::saturating_sub),
        }
        if self.order.len() > REFUSED_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(forgotten) = self.reasons.remove(&oldest)
        {
            self.weigh(&forgotten, usize::saturating_sub);
        }
    }

    #[cfg(feature = "native")]
    fn weigh(&mut self, refusal: &Refusal, change: fn(usize, usize) -> usize) {
        self.texts = change(self.texts, refusal.heap_bytes());
    }

    #[cfg(not(feature = "native"))]
    fn weigh(&self, _: &Refusal, _: fn(usize, usize) -> usize) {}

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(super) fn heap_bytes(&self) -> usize {
        let entry = size_of::<(ChangeHash, Refusal)>();
        let order = self.order.capacity() * size_of::<ChangeHash>();
        super::heap_size::table(self.reasons.capacity(), entry) + order + self.texts
    }
}
