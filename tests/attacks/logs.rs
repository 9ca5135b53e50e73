//! What a peer sends and the log tells of.

use reconverge_tests::forge::chunk;

use crate::attacker::Attacker;
use crate::made::{Empty, actor, document, sync, unknown};
use crate::measure::Trial;

/// Changes that skip one of their author: each is refused, and each is another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refused_changes_without_end() {
    let Some(trial) = Trial::new("refused-changes").await else {
        return;
    };
    trial
        .run(async |target| {
            target
                .by(2, |target, name| async move {
                    let own = u64::from(name.as_bytes()[9]) << 32;
                    let mut number = own;
                    while let Some(mut attacker) = Attacker::join(&target, &name).await {
                        loop {
                            let mut chunks = Vec::new();
                            for _ in 0..8 {
                                number += 1;
                                let change = Empty {
                                    deps: &[],
                                    actor: &actor(number),
                                    seq: 2,
                                    time: 0,
                                };
                                chunks.push(chunk(1, &change.data()));
                            }
                            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
                            let message = sync(&name, document(1), &[unknown(1)], &chunks);
                            if !attacker.feed(message).await {
                                break;
                            }
                        }
                    }
                })
                .await;
        })
        .await;
}
