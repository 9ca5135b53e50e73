//! One document: a mailbox, and the turns that empty it.
//!
//! A [`Slot`] empties the mailbox turn by turn. A turn is: take in every message, commit what is new,
//! then ask the history what each peer should be sent and hand that to the peers that have room.
//! What a failed commit leaves behind is dropped and read again from disk; nobody was told of it.

mod building;
mod charging;
mod dormant;
mod eviction_queue;
mod gossip;
mod loading;
mod mailbox;
mod membership;
mod parts;
mod quarantining;
mod receiving;
pub(crate) mod registry;
pub(crate) mod reminders;
mod salvaging;
mod saving;
mod senders;
mod sending;
mod services;
mod slot;
mod unavailable;
mod unfolded_cache;
mod unfolding;
mod unsaved;
mod uploads;
mod verifying;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reconverge::history::Peers;
use reconverge::id::ConnectionId;
use reconverge::storage::StorageError;

use self::building::BuildResult;
use self::loading::Loaded;
pub(crate) use self::mailbox::{Incoming, Input};
pub(crate) use self::services::Services;
pub(crate) use self::slot::Slot;
use self::unsaved::UnsavedBatch;
use crate::limits::memory::Charge;
use crate::limits::wait_queue::Invitation;
use crate::peers::Connection;
use crate::remote_heads::RemoteHeads;

/// What is remembered of a document for a connection that speaks of it, and of the document itself,
/// while nothing comes (measured: 0.7 KB).
pub(crate) const SPOKEN_OF_BYTES: usize = 704;

/// A damaged document is begun anew at most so often; whoever speaks of it meanwhile makes it be
/// read again.
const SALVAGE_AFTER: Duration = Duration::from_secs(60);

/// A document that is open.
#[derive(Default)]
struct Document {
    /// Boxed, so that a document which was evicted is small.
    history: Option<Box<Loaded>>,
    /// The peers, while there is no history.
    parked: Peers,
    connections: HashMap<ConnectionId, Arc<Connection>>,
    remote_heads: RemoteHeads,
    /// What waits while storage fails.
    backlog: VecDeque<Input>,
    /// What could not be stored.
    unstored: Option<UnsavedBatch>,
    /// Changes were sent and not taken or lost; their senders are asked for them when nothing waits
    /// to be stored.
    asks_again: bool,
    building: building::Building,
    verifying: verifying::Verifying,
    concerned: Recipients,
    /// When it was last begun anew, because it was damaged.
    salvaged: Option<Instant>,
    /// Those whose messages exceed a limit, which they were told.
    not_taken: HashSet<ConnectionId>,
    /// Those who have not read what they asked for, and are told when they have that the document is
    /// unavailable, and the heads of storages.
    not_told: HashSet<ConnectionId>,
    /// Those whose requests wait for somebody who has the document.
    graces: HashSet<ConnectionId>,
    /// There was something in it when somebody asked.
    had_contents: bool,
    /// Who called it in this turn.
    called: Vec<Arc<Invitation>>,
    /// Who spoke in this turn.
    spoke: Vec<ConnectionId>,
    /// What is held because of a peer, where that is much.
    charges: HashMap<ConnectionId, Charge>,
    /// What was taken in during this turn and is not stored yet, of those who sent much.
    unsaved: Vec<Charge>,
}

/// Who may have something to be sent at the end of the turn.
enum Recipients {
    All,
    Some(Vec<ConnectionId>),
}

impl Default for Recipients {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Recipients {
    fn add(&mut self, connection: ConnectionId) {
        if let Self::Some(some) = self {
            some.push(connection);
        }
    }
}

impl Document {
    fn is_unused(&self) -> bool {
        self.connections.is_empty() && self.is_quiet() && self.verifying.is_idle()
    }

    /// Whether nothing waits, and nothing is being built.
    fn is_quiet(&self) -> bool {
        self.backlog.is_empty() && self.unstored.is_none() && self.building.is_idle()
    }

    async fn turn(&mut self, slot: &Arc<Slot>, inputs: VecDeque<Input>) {
        if self.history.is_none()
            && self.backlog.is_empty()
            && inputs.iter().all(Input::needs_nothing)
        {
            for input in inputs {
                self.take_in_beside(slot, &input);
            }
            return;
        }
        self.backlog.extend(inputs);
        let result = self.try_turn(slot).await;
        self.called.clear();
        self.unsaved.clear();
        if let Err(failure) = result {
            slot.storage_failed(&failure);
            self.give_turns_back();
            self.verifying.give_place_back();
            if let Some(open) = self.history.take() {
                self.asks_again |= open.history.has_more_than_is_stored();
                self.parked = open.history.into_peers_after_failure();
            }
            let damaged = matches!(failure, StorageError::Damaged { .. });
            if damaged && self.unstored.take().is_some() {
                self.asks_again = true;
            }
            if !damaged {
                slot.push_after(slot.services.config.storage_retry, Input::Retry);
            } else if Box::pin(self.salvage(slot)).await {
                slot.push(Input::Retry);
            } else {
                slot.push_after(SALVAGE_AFTER, Input::Retry);
            }
        }
    }

    async fn try_turn(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        if self.backlog.iter().any(|i| matches!(i, Input::Store)) {
            self.backlog.retain(|i| !matches!(i, Input::Store));
            Box::pin(self.store_again(slot)).await?;
        }
        if self.history.is_none() {
            Box::pin(self.open(slot)).await?;
        }
        if self.unstored.is_none() && std::mem::take(&mut self.asks_again) {
            self.opened().history.ask_again();
            self.concerned = Recipients::All;
        }
        self.ask_for_turns(slot);
        while let Some(input) = self.backlog.pop_front() {
            let taken_in = self.take_in(slot, &input).await;
            // Messages are kept where they wait for their turn.
            // The result of a check is made again.
            let is_kept = match &input {
                Input::Message(_) | Input::Part { .. } => true,
                Input::Built(result) => matches!(**result, BuildResult::Checked { .. }),
                _ => false,
            };
            if taken_in.is_err() && !is_kept {
                // Taking it in again finds what was taken in before.
                self.backlog.push_front(input);
            }
            taken_in?;
        }
        self.save(slot).await?;
        self.give_grace_if_emptied(slot);
        self.send(slot)?;
        self.charge_all();
        self.check_if_due(slot);
        Ok(())
    }

    async fn take_in(&mut self, slot: &Arc<Slot>, input: &Input) -> Result<(), StorageError> {
        match input {
            Input::Message(message) => {
                self.join(slot, &message.from);
                self.concerned.add(message.from.id);
                self.spoke.push(message.from.id);
                self.message(slot, message)?;
            }
            Input::RemoteHeads { .. } | Input::Replay { .. } | Input::Leave(_) | Input::Gone(_) => {
                self.take_in_beside(slot, input);
            }
            Input::Grace(connection, waited) => self.grace(slot, *connection, *waited),
            Input::Part { from, .. } => {
                self.concerned.add(*from);
                self.spoke.push(*from);
                self.take_in_part(slot, *from)?;
            }
            Input::Built(result) => {
                self.concerned = Recipients::All;
                Box::pin(self.built(slot, result)).await?;
            }
            Input::Verify(place) => self.verifying.remind(place),
            // The rest of the turn does what these ask for.
            Input::Room(called) => {
                self.called.push(called.clone());
                self.concerned = Recipients::All;
                self.tell_again(slot);
            }
            Input::Retry => {
                self.concerned = Recipients::All;
                self.tell_again(slot);
            }
            Input::Store => self.concerned = Recipients::All,
        }
        Ok(())
    }

    /// Takes in what has nothing to do with the history.
    fn take_in_beside(&mut self, slot: &Arc<Slot>, input: &Input) {
        match input {
            Input::RemoteHeads { from, heads, .. } => {
                for (storage, seen) in heads {
                    self.gossip(slot, *from, storage, seen);
                }
            }
            Input::Replay { to, storages } => self.replay(slot, to, storages),
            Input::Leave(connection) if self.building.leaves_later(*connection) => {}
            Input::Leave(connection) => self.leave(slot, *connection),
            // It would send its upload again, and others wait for the worker.
            Input::Gone(connection) => self.building.leave(*connection),
            _ => {}
        }
    }
}
