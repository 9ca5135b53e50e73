//! Waiting until a document is here as a relay has it.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::driver::Shared;
use super::handle::{DocHandle, Waiting};
use super::news::Gone;
use crate::engine::{Asked, Fault, NotCurrent};
use crate::id::DocumentId;

/// Why a document is not known to be current.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CurrentError {
    /// No relay could be asked, for this reason.
    #[error("no relay can be asked whether the document is current: {0}")]
    Unreachable(Fault),
    /// The document was deleted, or the client was shut down.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl DocHandle {
    /// Waits until the document is here as a relay has it: until one that is connected has said, after
    /// this call, which version it has, or that it has nothing new, and all of that shows here. What
    /// the relay stored before the call is here then; but what it stored in the very moment of the
    /// call may be sent after its answer. Of a document that the relay does not have, all is here.
    ///
    /// [`Repo::find`](super::Repo::find) gives a document of local storage at once, however old it is,
    /// and its status may be `saved` though others wrote since; this is for whoever must not answer
    /// from an old version. A relay sends what is new by itself, so on a connection that is open it
    /// costs one ping, which shows that the connection still lives; on a new one, the document's turn
    /// among those that are greeted. Of several relays, one is enough.
    ///
    /// It waits for relays that cannot be reached as long as `find` does
    /// ([`RepoBuilder::reach_within`](super::RepoBuilder::reach_within)), during which they are tried
    /// each second, and for what is on its way as long as it takes: wrap it in
    /// [`tokio::time::timeout`] to give up sooner.
    ///
    /// # Errors
    /// [`CurrentError::Unreachable`] when no relay could be reached in that time, or all refuse us, or
    /// there is none. What is here may be old then, and can be read and edited all the same.
    pub async fn when_current(&self) -> Result<(), CurrentError> {
        let shared = self.repo().shared();
        let id = self.document_id();
        // Relays that cannot be reached are tried more often meanwhile.
        let _waiting = Waiting::new(shared);
        let (teller, mut answer) = oneshot::channel();
        let asked = {
            let mut state = shared.state();
            if state.storage.is_none() {
                return Err(state.why_gone(&id).into());
            }
            let asked = state.engine.ask_current(id);
            state.askers.insert(asked, teller);
            asked
        };
        shared.wake.notify_one();
        let _asking = Asking { shared, asked };
        let reach_within = self.repo().reach_within();
        loop {
            match tokio::time::timeout(reach_within, &mut answer).await {
                Ok(Ok(Ok(()))) => return Ok(()),
                Ok(Ok(Err(NotCurrent::Unreachable(fault)))) => {
                    return Err(CurrentError::Unreachable(fault));
                }
                Ok(Ok(Err(NotCurrent::Gone)) | Err(_)) => return Err(why_gone(shared, &id).into()),
                Err(_) => {
                    let fault = shared.state().engine.why_unanswered(asked);
                    if let Some(fault) = fault {
                        return Err(CurrentError::Unreachable(fault));
                    }
                }
            }
        }
    }
}

fn why_gone(shared: &Shared, id: &DocumentId) -> Gone {
    shared.state().why_gone(id)
}

/// Ends a question that nobody waits for any more.
struct Asking<'a> {
    shared: &'a Arc<Shared>,
    asked: Asked,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.askers.remove(&self.asked);
        state.engine.withdraw(self.asked);
    }
}
