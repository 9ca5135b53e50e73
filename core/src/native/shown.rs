//! What `{:?}` shows of a client and of a document: which one it is, and not what is in it, which is
//! long and may be private.

use std::fmt;

use super::{DocHandle, Repo};

impl fmt::Debug for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repo")
            .field("peer", self.peer_id())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DocHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DocHandle")
            .field(&format_args!("{}", self.url()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;
    use automerge::ROOT;
    use automerge::transaction::Transactable;

    #[tokio::test]
    async fn a_client_and_a_document_are_named_and_their_contents_not_shown() {
        let builder = Repo::builder()
            .relay("ws://127.0.0.1:1/?token=secret&space=shop")
            .token("secret")
            .peer_id(PeerId::new("shop-1").unwrap());
        let shown = format!("{builder:?}");
        assert!(
            shown.contains("space=shop") && !shown.contains("secret"),
            "{shown}"
        );
        let repo = builder.build().await.unwrap();
        let order = repo.create_with(|tx| tx.put(ROOT, "customer", "Ann"));
        let order = order.unwrap();
        assert_eq!(format!("{repo:?}"), "Repo { peer: PeerId(shop-1), .. }");
        assert_eq!(format!("{order:?}"), format!("DocHandle({})", order.url()));
        // In an edit, too.
        let edited = order.change(|tx| tx.put(ROOT, "shown", format!("{order:?}")));
        edited.unwrap();
    }
}
