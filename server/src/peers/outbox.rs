//! What waits to be written to one connection.
//!
//! Sync messages do not queue up here: a document asks [`Outbox::has_room`] before it decides what
//! to send, and when there is none, leaves its name to be called when there is: as many at a time as
//! there is room for, and the next when one of them had its turn. So a slow peer costs a bounded
//! number of frames, and what it missed is one message later. Presence has a queue of its own, from
//! which the oldest falls out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;

use crate::limits::large_messages::SendPermit;
use crate::limits::memory::{Charge, Holder};
use crate::limits::wait_queue::{Host, WaitQueue, Waiter, invite};

/// Sync frames that may wait for one connection. A few let the writer fill a packet; more would
/// only delay the moment at which what a slow peer missed becomes one message.
const FRAMES_MAX: usize = 8;

/// Bytes of sync frames above which no more are added; one frame may exceed it.
const BYTES_MAX: usize = 256 * 1024;

/// Presence messages, and bytes of them, that may wait for one connection.
const PRESENCE_MAX: usize = 64;
const PRESENCE_BYTES_MAX: usize = 64 * 1024;

/// Small answers (handshake, unavailable, gossip) that may wait, and bytes of them; a peer that lets
/// more pile up is not reading and is closed.
const ANSWERS_MAX: usize = 64 * 1024;
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What waits is charged in steps of so many bytes; who reads in time costs the account nothing.
const CHARGE_STEP: usize = 32 * 1024;

/// One WebSocket message: a head of its own, and a payload that may be shared with other peers.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
    /// UnsavedBatch until the payload is written, if it is large.
    pub(crate) permit: Option<SendPermit>,
}

impl Frame {
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self {
            head: bytes.into(),
            payload: Bytes::new(),
            permit: None,
        }
    }

    fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// Why a connection is closed, as a WebSocket close code and a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Closing {
    /// Its peer ended it, and what came before that is not read.
    pub(crate) fn unread() -> Self {
        Self {
            code: 1006,
            reason: "closed by the peer, and not read to its end".into(),
        }
    }
}

/// What others ask of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// That it writes what is here and ends.
    Close(Closing),
    /// That it finds out whether its peer still answers.
    Probe,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    answers: usize,
    answer_bytes: usize,
    charge: Option<Charge>,
    presence: VecDeque<Frame>,
    presence_bytes: usize,
    /// Who waits for room for a frame, and who until it is not crowded.
    waiting: WaitQueue,
    waiting_for_calm: WaitQueue,
    /// How many documents were called and had no turn yet.
    called: usize,
    closing: Option<Closing>,
    probed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    writer: AtomicWaker,
}

impl State {
    /// Charges what waits, about.
    fn charge(&mut self) {
        let Some(charge) = &mut self.charge else {
            return;
        };
        let bytes = self.bytes + self.presence_bytes;
        if bytes > charge.bytes() + CHARGE_STEP || bytes + 2 * CHARGE_STEP < charge.bytes() {
            charge.resize(bytes);
        }
        if bytes == 0 && charge.bytes() > 0 {
            charge.resize(0);
        }
    }

    fn has_room(&self) -> bool {
        self.frames.len() < FRAMES_MAX && self.bytes < BYTES_MAX
    }

    /// The documents that are to be told that there is room, which counts as theirs.
    fn call(&mut self) -> Vec<Arc<dyn Waiter>> {
        let mut called = Vec::new();
        while self.has_room() && self.frames.len() + self.called < FRAMES_MAX {
            let next = match self.waiting.next() {
                None if !self.is_crowded() => self.waiting_for_calm.next(),
                next => next,
            };
            let Some(waiter) = next else {
                break;
            };
            self.called += 1;
            called.push(waiter);
        }
        called
    }

    fn is_crowded(&self) -> bool {
        self.answers > ANSWERS_MAX / 8 || self.answer_bytes > ANSWER_BYTES_MAX / 8
    }
}

impl Outbox {
    /// One whose frames are charged to this holder.
    pub(crate) fn new(holder: &Arc<Holder>) -> Arc<Self> {
        let outbox = Self::default();
        outbox.state().charge = Some(holder.charge(0));
        Arc::new(outbox)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a sync frame may be added. If not, `waiter` is told when one may.
    pub(crate) fn has_room<W: Waiter + 'static>(&self, waiter: &Arc<W>) -> bool {
        let mut state = self.state();
        let room = state.has_room();
        if !room {
            state.waiting.stand(waiter);
        }
        room
    }

    /// Adds a frame. Sync frames ask [`Self::has_room`] before.
    pub(crate) fn push(&self, frame: Frame) {
        let mut state = self.state();
        state.bytes += frame.len();
        state.frames.push_back(frame);
        state.charge();
        drop(state);
        self.writer.wake();
    }

    /// Whether so many small answers wait that those which can wait should; `waiter` is told then when
    /// some were written.
    pub(crate) fn is_crowded_for<W: Waiter + 'static>(&self, waiter: &Arc<W>) -> bool {
        let mut state = self.state();
        let crowded = state.is_crowded();
        if crowded {
            state.waiting_for_calm.stand(waiter);
        }
        crowded
    }

    /// Adds a small answer that does not depend on room.
    pub(crate) fn answer(&self, bytes: Vec<u8>) {
        let mut state = self.state();
        state.answers += 1;
        state.answer_bytes += bytes.len();
        if state.answers > ANSWERS_MAX || state.answer_bytes > ANSWER_BYTES_MAX {
            drop(state);
            self.close(1008, "does not read what it asked for");
            return;
        }
        state.bytes += bytes.len();
        state.frames.push_back(Frame::whole(bytes));
        state.charge();
        drop(state);
        self.writer.wake();
    }

    /// Adds a presence message; the oldest ones give way.
    pub(crate) fn present(&self, frame: Frame) {
        let mut state = self.state();
        state.presence_bytes += frame.len();
        state.presence.push_back(frame);
        while state.presence.len() > 1
            && (state.presence.len() > PRESENCE_MAX || state.presence_bytes > PRESENCE_BYTES_MAX)
        {
            let oldest = state.presence.pop_front().map_or(0, |oldest| oldest.len());
            state.presence_bytes -= oldest;
        }
        state.charge();
        drop(state);
        self.writer.wake();
    }

    /// Asks the connection to write what is here and to end.
    pub(crate) fn close(&self, code: u16, reason: &str) {
        let mut state = self.state();
        state.closing.get_or_insert_with(|| Closing {
            code,
            reason: reason.to_owned(),
        });
        drop(state);
        self.writer.wake();
    }

    /// Whether the connection was asked to end.
    pub(crate) fn is_closing(&self) -> bool {
        self.state().closing.is_some()
    }

    /// Asks the connection to find out whether its peer still answers.
    pub(crate) fn probe(&self) {
        self.state().probed = true;
        self.writer.wake();
    }

    /// What the connection was asked for, beside the frames.
    pub(crate) fn wish(&self) -> Option<Wish> {
        let mut state = self.state();
        match &state.closing {
            Some(closing) => Some(Wish::Close(closing.clone())),
            None => std::mem::take(&mut state.probed).then_some(Wish::Probe),
        }
    }

    /// Has the caller woken when something is added from now on.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.writer.register(cx.waker());
    }

    /// The next frame to write.
    pub(crate) fn poll_frame(self: &Arc<Self>) -> Poll<Frame> {
        let mut state = self.state();
        if let Some(frame) = state.frames.pop_front() {
            state.bytes -= frame.len();
            if state.frames.is_empty() {
                (state.answers, state.answer_bytes) = (0, 0);
            }
            state.charge();
            let called = state.call();
            drop(state);
            invite(self, called);
            return Poll::Ready(frame);
        }
        if let Some(presence) = state.presence.pop_front() {
            state.presence_bytes -= presence.len();
            state.charge();
            return Poll::Ready(presence);
        }
        Poll::Pending
    }
}

impl Host for Outbox {
    fn turn_ended(self: Arc<Self>) {
        let mut state = self.state();
        state.called -= 1;
        let next = state.call();
        drop(state);
        invite(&self, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &Arc<Outbox>) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while let Poll::Ready(frame) = outbox.poll_frame() {
            frames.push(frame.head);
        }
        frames
    }

    #[test]
    fn presence_that_waits_loses_its_oldest() {
        let outbox = Arc::new(Outbox::default());
        for n in 0..100u8 {
            outbox.present(Frame::whole(vec![n]));
        }
        let kept: Vec<u8> = drain(&outbox).iter().map(|frame| frame[0]).collect();
        assert_eq!(kept, (36..100).collect::<Vec<u8>>());
        for n in 0..3u8 {
            outbox.present(Frame::whole(vec![n; 40_000]));
        }
        assert_eq!(drain(&outbox).len(), 1);
    }

    #[test]
    fn the_first_reason_to_close_stays() {
        let outbox = Outbox::default();
        outbox.close(1002, "bad frame");
        outbox.close(1012, "restart");
        outbox.probe();
        let wish = outbox.wish();
        assert!(matches!(
            wish,
            Some(Wish::Close(Closing { code: 1002, .. }))
        ));
    }
}
