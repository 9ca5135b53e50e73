//! The numbers of an actor's changes and of their operations.

use automerge::transaction::Transactable;
use automerge::{Change, ROOT};
use reconverge::history::{ChangeError, Refusal};

use crate::alter::{FIRST_MAX_OP, actor, altered, document, edit, hex};
use crate::peer::{check, history_of, send};

#[test]
fn an_actors_changes_follow_each_other_without_gap_and_without_fork() {
    let mut doc = document();
    let bad = altered(&mut doc, |c| c.seq = 2);
    let gap = Refusal::Sequence {
        actor: hex(2),
        last: 0,
        found: 2,
    };
    check(&mut doc, bad.raw_bytes(), &gap);
    let reused = |seq| Refusal::ActorReused { actor: hex(1), seq };
    let bad = altered(&mut doc, |c| c.actor_id = actor(1));
    check(&mut doc, bad.raw_bytes(), &reused(1));
    let mut fork = doc.fork().with_actor(actor(1));
    doc.put(ROOT, "n", 1).unwrap();
    doc.commit();
    fork.put(ROOT, "n", 2).unwrap();
    fork.commit();
    let forked = fork.get_last_local_change().unwrap();
    check(&mut doc, forked.raw_bytes(), &reused(2));
    let mut later = forked.decode();
    later.seq = 3;
    later.start_op = (FIRST_MAX_OP + 5).try_into().unwrap();
    check(
        &mut doc,
        Change::from(later.clone()).raw_bytes(),
        &reused(3),
    );
    later.seq = 4;
    let gap = Refusal::Sequence {
        actor: hex(1),
        last: 2,
        found: 4,
    };
    check(&mut doc, Change::from(later).raw_bytes(), &gap);
}

/// A fork is seen also where the actor's last change has no operations.
#[test]
fn a_fork_after_an_empty_change_is_refused() {
    let mut doc = document();
    let mut fork = doc.fork().with_actor(actor(1));
    doc.empty_change(automerge::transaction::CommitOptions::default());
    fork.put(ROOT, "n", 2).unwrap();
    fork.commit();
    let mut forked = fork.get_last_local_change().unwrap().decode();
    let reused = |seq| Refusal::ActorReused { actor: hex(1), seq };
    check(
        &mut doc,
        Change::from(forked.clone()).raw_bytes(),
        &reused(2),
    );
    forked.seq = 3;
    check(&mut doc, Change::from(forked).raw_bytes(), &reused(3));
}

#[test]
fn operations_begin_above_all_that_they_depend_on() {
    let mut doc = document();
    for found in [1, FIRST_MAX_OP] {
        let bad = altered(&mut doc, |c| c.start_op = found.try_into().unwrap());
        let refusal = Refusal::StartOp {
            found,
            max_op: FIRST_MAX_OP as u32,
        };
        check(&mut doc, bad.raw_bytes(), &refusal);
    }
    // Automerge leaves no gap; others may.
    let good = altered(&mut doc, |c| c.start_op = 100.try_into().unwrap());
    let mut history = history_of(&mut doc);
    assert_eq!(send(&mut history, &[good.raw_bytes()]).admitted, 1);
    let bad = altered(&mut doc, |c| {
        c.start_op = u64::from(u32::MAX).try_into().unwrap()
    });
    check(
        &mut doc,
        bad.raw_bytes(),
        &ChangeError::Limit("operation counter").into(),
    );
}

/// Automerge 0.12 ends where it applies another one.
#[test]
fn only_the_first_change_of_an_actor_names_an_author() {
    let named = |change: &Change| {
        let mut named = change.decode();
        named.extra_bytes = vec![1, 3, b'a', b'n', b'n'];
        Change::from(named)
    };
    let mut doc = document();
    let mut history = history_of(&mut doc);
    let first = edit(&mut doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    assert_eq!(first.seq(), 1);
    let received = send(&mut history, &[named(&first).raw_bytes()]);
    assert_eq!(received.refused, []);
    doc.put(ROOT, "n", 2).unwrap();
    doc.commit();
    let later = doc.get_last_local_change().unwrap();
    assert_eq!(later.seq(), 2);
    let received = send(&mut history, &[named(&later).raw_bytes()]);
    assert!(matches!(received.refused[..], [(_, Refusal::Automerge(_))]));
}
