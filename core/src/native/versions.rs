//! Edits that say of which version they are, as an `If-Match` does.

use automerge::ChangeHash;
use automerge::transaction::Transaction;

use super::handle::{ChangeError, DocHandle};
use super::repo::unix_seconds;
use crate::replica::ChangeOptions;

/// Why an edit that had a condition was not made.
enum Unmade<E> {
    Changed(Vec<ChangeHash>),
    Edit(E),
}

impl DocHandle {
    /// Edits the document, as one change, if `heads` are its heads, in whatever order; they are
    /// compared and the edit is made in one moment. Gives what `edit` gives, and the heads that name
    /// the document right after it, for the answer's `ETag`: others may have written more by then.
    ///
    /// This tells edits that crossed here. Somebody who writes elsewhere at the same time is not
    /// heard yet, and both edits merge later; nothing that works while a relay is away can tell that.
    ///
    /// ```no_run
    /// # use automerge::{ROOT, transaction::Transactable};
    /// # use reconverge::native::ChangeError;
    /// # fn example(order: reconverge::native::DocHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// let seen = order.heads()?;
    /// match order.change_if(&seen, |tx| tx.put(ROOT, "state", "paid")) {
    ///     Ok(((), now)) => println!("200, now at {now:?}"),
    ///     Err(ChangeError::Changed { heads }) => println!("412, it is at {heads:?}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChangeError::Changed`] when the document has other heads, whether it is newer or never had
    /// these; else as for [`Self::change`]. Nothing happened then.
    pub fn change_if<T, E>(
        &self,
        heads: &[ChangeHash],
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<(T, Vec<ChangeHash>), ChangeError<E>> {
        let expected = in_order(heads.to_vec());
        let options = ChangeOptions::made_at(unix_seconds());
        let made = self.change_as(options, |tx| {
            let heads = in_order(tx.get_heads());
            if heads != expected {
                return Err(Unmade::Changed(heads));
            }
            edit(tx).map_err(Unmade::Edit)
        });
        match made {
            Ok((result, change)) => Ok((result, after(expected, change))),
            Err(ChangeError::Edit(Unmade::Changed(heads))) => Err(ChangeError::Changed { heads }),
            Err(ChangeError::Edit(Unmade::Edit(error))) => Err(ChangeError::Edit(error)),
            Err(ChangeError::Gone(gone)) => Err(ChangeError::Gone(gone)),
            Err(ChangeError::Limit(limit)) => Err(ChangeError::Limit(limit)),
            Err(ChangeError::Changed { heads }) => Err(ChangeError::Changed { heads }),
            Err(ChangeError::Unknown(hash)) => Err(ChangeError::Unknown(hash)),
        }
    }

    /// Edits the document as it was at `heads`, as one change, which merges with all that came since:
    /// for somebody who saw that version and knows of nothing newer. No heads are an empty document.
    /// `edit` sees the document as it was. Gives what `edit` gives, and the heads that name the old
    /// version with this edit, without what came since.
    ///
    /// It costs a copy of the document as it was. Each such change has an actor of its own, which is
    /// kept for good, so it is not for what is edited all the time. Of two values that are put at one
    /// place at once, one shows, and the other is a conflict.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`] when a head is not known here; else as for [`Self::change`]. Nothing
    /// happened then.
    pub fn change_at<T, E>(
        &self,
        heads: &[ChangeHash],
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<(T, Vec<ChangeHash>), ChangeError<E>> {
        let options = ChangeOptions {
            at: Some(heads),
            ..ChangeOptions::made_at(unix_seconds())
        };
        let (result, change) = self.change_as(options, edit)?;
        Ok((result, after(in_order(heads.to_vec()), change)))
    }
}

fn in_order(mut heads: Vec<ChangeHash>) -> Vec<ChangeHash> {
    heads.sort_unstable();
    heads.dedup();
    heads
}

/// What was changed stands on all of the heads before.
fn after(heads: Vec<ChangeHash>, change: Option<ChangeHash>) -> Vec<ChangeHash> {
    change.map_or(heads, |change| vec![change])
}
