//! What lies in the past of a change: per actor its last operation.

use std::collections::VecDeque;
use std::sync::Arc;

use super::History;
use super::budget::Budget;
use super::graph::{Graph, NeedGraph};
use super::outline::{self, ActorClock, OpId, Outline};

/// The operations that a change may refer to.
#[derive(Debug, Clone)]
pub(crate) enum Past {
    /// All that there are.
    All,
    /// Per actor those up to a counter; actors beyond the end have none.
    UpTo(Arc<[ActorClock]>),
}

impl Past {
    fn max_op(&self, outline: &Outline, actor: u32) -> u32 {
        match self {
            Self::All => outline.actors()[actor as usize].max_op(),
            Self::UpTo(clock) => clock.get(actor as usize).map_or(0, |clock| clock.max_op),
        }
    }

    pub(super) fn seq(&self, outline: &Outline, actor: u32) -> u64 {
        match self {
            Self::All => outline.actors()[actor as usize].seq,
            Self::UpTo(clock) => clock.get(actor as usize).map_or(0, |clock| clock.seq),
        }
    }

    pub(super) fn has(&self, outline: &Outline, id: OpId) -> bool {
        outline.has_op(id) && id.1 <= self.max_op(outline, id.0)
    }
}

impl History {
    /// What lies in the past of a change with these parents. `None` when that takes a longer walk
    /// than may be done now.
    pub(super) fn past(
        &mut self,
        parents: &[u32],
        budget: &Budget,
    ) -> Result<Option<Past>, NeedGraph> {
        if self.heads.are_among(parents) {
            return Ok(Some(Past::All));
        }
        if let Some(clock) = self.clocks.joined(parents) {
            return Ok(Some(Past::UpTo(clock)));
        }
        if let Some(clock) = self.clocks.walked(parents) {
            return Ok(Some(Past::UpTo(clock)));
        }
        // The second change of one of many who wrote at the same time.
        if let [parent] = parents
            && let Ok(above) = self.graph.parents(*parent)
            && let Some(clock) = self.clocks.walked(above)
        {
            return Ok(Some(Past::UpTo(self.clock_with(&clock, *parent)?)));
        }
        if !budget.may_walk(self.walk(), self.steps.taken()) {
            return Ok(None);
        }
        let (marks, below) = self.ancestors(parents);
        let mut clock = if self.covers_base(&below)? {
            self.base_clock.to_vec()
        } else {
            Vec::new()
        };
        clock.resize(self.outline.actors().len(), ActorClock::default());
        for (row, _) in marks.iter().enumerate().filter(|(_, marked)| **marked) {
            let index = self.graph.base() + row as u32;
            let actor = self.graph.actor(index)? as usize;
            let of_actor: &mut ActorClock = &mut clock[actor];
            of_actor.seq += 1;
            of_actor.max_op = of_actor.max_op.max(self.graph.max_op(index)?);
        }
        let nobody = ActorClock::default();
        let len = clock.iter().rposition(|of_actor| *of_actor != nobody);
        clock.truncate(len.map_or(0, |last| last + 1));
        let clock: Arc<[ActorClock]> = clock.into();
        self.clocks.walk(parents, &clock);
        Ok(Some(Past::UpTo(clock)))
    }

    /// A clock, and the change with this index after it.
    fn clock_with(&self, clock: &[ActorClock], index: u32) -> Result<Arc<[ActorClock]>, NeedGraph> {
        let actor = self.graph.actor(index)? as usize;
        let max_op = self.graph.max_op(index)?;
        let mut clock = clock.to_vec();
        clock.resize(clock.len().max(actor + 1), ActorClock::default());
        let of_actor = &mut clock[actor];
        of_actor.seq += 1;
        of_actor.max_op = of_actor.max_op.max(max_op);
        Ok(clock.into())
    }
}

/// For the newest changes, what lies in their past: per actor the last operation, the change's own
/// included. Concurrent writers come back to them again and again.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    recent: VecDeque<(u32, Arc<[ActorClock]>)>,
    /// The pasts that were last found by a walk through the graph, by the parents: many who write
    /// at the same time began at the same state.
    walked: VecDeque<(Vec<u32>, Arc<[ActorClock]>)>,
}

#[cfg(feature = "native")]
fn clock_held(clock: &[ActorClock]) -> usize {
    // With the counters of who has it.
    size_of_val(clock) + 16
}

impl Clocks {
    const LEN_MAX: usize = 64;
    /// Above this many actors a clock costs more than it saves.
    const ACTORS_MAX: usize = 1024;
    const WALKED_MAX: usize = 4;
    /// A walk that found more actors is not kept.
    const WALKED_ACTORS_MAX: usize = 64 * 1024;

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(super) fn heap_bytes(&self) -> usize {
        // As many as there are at most, each of which is looked at.
        let recent = self.recent.iter().map(|(_, clock)| clock_held(clock));
        let walked = self.walked.iter();
        let walked =
            walked.map(|(parents, clock)| super::heap_size::list(parents) + clock_held(clock));
        let entries = self.recent.capacity() * size_of::<(u32, Arc<[ActorClock]>)>();
        recent.chain(walked).sum::<usize>() + entries
    }

    fn walked(&self, parents: &[u32]) -> Option<Arc<[ActorClock]>> {
        let found = self.walked.iter().find(|(of, _)| of == parents);
        found.map(|(_, clock)| clock.clone())
    }

    fn walk(&mut self, parents: &[u32], clock: &Arc<[ActorClock]>) {
        if clock.len() > Self::WALKED_ACTORS_MAX {
            return;
        }
        self.walked.push_back((parents.to_vec(), clock.clone()));
        if self.walked.len() > Self::WALKED_MAX {
            self.walked.pop_front();
        }
    }

    fn joined(&self, parents: &[u32]) -> Option<Arc<[ActorClock]>> {
        let clock = |parent: &u32| {
            self.recent
                .iter()
                .rev()
                .find(|(index, _)| index == parent)
                .map(|(_, clock)| clock)
        };
        let (first, others) = parents.split_first()?;
        let first = clock(first)?;
        if others.is_empty() {
            return Some(first.clone());
        }
        let mut joined = first.to_vec();
        for other in others {
            let other = clock(other)?;
            joined.resize(joined.len().max(other.len()), ActorClock::default());
            for (actor, other) in other.iter().enumerate() {
                joined[actor].seq = joined[actor].seq.max(other.seq);
                joined[actor].max_op = joined[actor].max_op.max(other.max_op);
            }
        }
        Some(joined.into())
    }

    pub(super) fn entered(&mut self, index: u32, past: &Past, outline: &Outline, graph: &Graph) {
        let actors = outline.actors();
        if actors.len() > Self::ACTORS_MAX {
            return;
        }
        let clock: Arc<[ActorClock]> = match past {
            // The outline has the change already.
            Past::All => actors.iter().map(outline::Actor::clock).collect(),
            Past::UpTo(clock) => {
                let mut clock = clock.to_vec();
                clock.resize(actors.len(), ActorClock::default());
                if let (Ok(actor), Ok(max_op)) = (graph.actor(index), graph.max_op(index)) {
                    let of_actor = &mut clock[actor as usize];
                    of_actor.seq += 1;
                    of_actor.max_op = of_actor.max_op.max(max_op);
                }
                clock.into()
            }
        };
        self.recent.push_back((index, clock));
        if self.recent.len() > Self::LEN_MAX {
            self.recent.pop_front();
        }
    }
}
