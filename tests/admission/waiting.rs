//! Changes whose dependencies did not come yet, or were refused.

use automerge::transaction::Transactable;
use automerge::{Change, ROOT};
use reconverge::history::{History, ORPHAN_BYTES_MAX, ORPHANS_MAX, REFUSED_MAX, Refusal};

use crate::alter::{actor, altered, document};
use crate::peer::{PEER, commit, history, history_of, send, send_as};

#[test]
fn an_orphan_waits_for_what_it_depends_on() {
    let mut doc = document();
    for n in 0..3 {
        doc.put(ROOT, "n", n).unwrap();
        doc.commit();
    }
    let changes = doc.get_changes(&[]);
    let bytes: Vec<_> = changes.iter().map(Change::raw_bytes).collect();
    let mut history = history();
    for orphan in [bytes[3], bytes[2], bytes[3], bytes[1]] {
        let received = send_as(&mut history, &doc.get_heads(), &[orphan]);
        assert_eq!((received.admitted, received.refused), (0, vec![]));
    }
    assert!(commit(&mut history).is_none());
    let asked = history.poll_send(PEER).unwrap();
    assert!(asked.need.contains(&changes[0].hash()));
    assert!(history.poll_send(PEER).is_none());
    assert_eq!(
        send_as(&mut history, &doc.get_heads(), &[bytes[0]]).admitted,
        4
    );
    assert_eq!(commit(&mut history).unwrap().changes.len(), 4);
    assert_eq!(history.durable_heads().as_ref(), doc.get_heads());
}

/// Sends what there is to send; how often the peer is told to forget what it sent.
fn resets(history: &mut History) -> usize {
    std::iter::from_fn(|| history.poll_send(PEER))
        .filter(|out| out.flags.is_some_and(|flags| flags.sync_reset))
        .count()
}

#[test]
fn too_many_orphans_are_let_go_and_asked_for_again() {
    let mut doc = document();
    let first = doc.get_changes(&[]);
    let mut orphans = Vec::new();
    for n in 0..=ORPHANS_MAX {
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
        orphans.push(doc.get_last_local_change().unwrap());
    }
    let mut history = history();
    let heads = doc.get_heads();
    for orphan in &orphans[..ORPHANS_MAX] {
        assert_eq!(
            send_as(&mut history, &heads, &[orphan.raw_bytes()]).refused,
            []
        );
    }
    assert_eq!(resets(&mut history), 0);
    let last = orphans.last().unwrap();
    let received = send_as(&mut history, &heads, &[last.raw_bytes()]);
    assert_eq!((received.admitted, received.refused), (0, vec![]));
    assert_eq!(resets(&mut history), 1);
    let received = send_as(&mut history, &heads, &[first[0].raw_bytes()]);
    assert_eq!(received.admitted as usize, 1 + ORPHANS_MAX);
    assert_eq!(
        send_as(&mut history, &heads, &[last.raw_bytes()]).admitted,
        1
    );
}

/// However many of them come in one message, its sender is asked again, as often as it may be.
#[test]
fn each_message_of_orphans_without_room_is_asked_for_again() {
    const OVER: usize = 20;
    let mut doc = document();
    let mut orphans = Vec::new();
    for n in 0..ORPHANS_MAX + OVER {
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
        orphans.push(doc.get_last_local_change().unwrap());
    }
    let chunks: Vec<_> = orphans.iter().map(Change::raw_bytes).collect();
    let mut history = history();
    for chunks in [&chunks, &chunks[ORPHANS_MAX..]] {
        send_as(&mut history, &doc.get_heads(), chunks);
        assert_eq!(resets(&mut history), 1);
    }
}

/// As many wait as fit by their bytes: when the dep comes, they enter, and no more.
#[test]
fn orphans_of_too_many_bytes_are_let_go() {
    const LARGE: usize = 1024 * 1024;
    let mut doc = document();
    let first = doc.get_changes(&[]);
    let mut orphans = Vec::new();
    for n in 0..ORPHAN_BYTES_MAX / LARGE + 2 {
        doc.put(ROOT, "large", vec![n as u8; LARGE]).unwrap();
        doc.commit();
        orphans.push(doc.get_last_local_change().unwrap());
    }
    let sizes = orphans.iter().map(|change| change.raw_bytes().len());
    let fit = sizes.scan(0, |sum, size| {
        *sum += size;
        (*sum <= ORPHAN_BYTES_MAX).then_some(())
    });
    let fit = fit.count();
    assert!(fit > 0 && fit < orphans.len());
    let mut history = history();
    let heads = doc.get_heads();
    for orphan in &orphans {
        let received = send_as(&mut history, &heads, &[orphan.raw_bytes()]);
        assert_eq!((received.admitted, received.refused), (0, vec![]));
    }
    let received = send_as(&mut history, &heads, &[first[0].raw_bytes()]);
    assert_eq!(received.admitted as usize, 1 + fit);
}

/// As many orphans as may wait, each for the one before, on a small stack: who refuses the first
/// refuses them all.
#[test]
fn a_long_chain_of_orphans_is_refused_without_a_deep_stack() {
    const STACK_BYTES: usize = 256 * 1024;
    let test = || {
        let mut doc = document();
        let bad = altered(&mut doc, |c| c.start_op = 1.try_into().unwrap());
        let mut misled = doc.fork().with_actor(actor(4));
        misled.apply_changes([bad.clone()]).unwrap();
        let mut history = history_of(&mut doc);
        for n in 0..ORPHANS_MAX {
            misled.put(ROOT, "m", n as u64).unwrap();
            misled.commit();
            let orphan = misled.get_last_local_change().unwrap();
            assert_eq!(send(&mut history, &[orphan.raw_bytes()]).refused, []);
        }
        let received = send(&mut history, &[bad.raw_bytes()]);
        assert_eq!(received.refused.len(), 1 + ORPHANS_MAX);
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(test).unwrap().join().unwrap();
}

#[test]
fn what_depends_on_a_refused_change_is_refused() {
    let mut doc = document();
    let bad = altered(&mut doc, |c| c.start_op = 1.try_into().unwrap());
    let mut misled = doc.fork().with_actor(actor(4));
    misled.apply_changes([bad.clone()]).unwrap();
    let mut after = Vec::new();
    for n in 0..2 {
        misled.put(ROOT, "m", n).unwrap();
        misled.commit();
        after.push(misled.get_last_local_change().unwrap());
    }
    let refusal = |on: &Change| Refusal::DependsOnRefused(on.hash());
    // After it.
    let mut history = history_of(&mut doc);
    send(&mut history, &[bad.raw_bytes()]);
    for (on, change) in [(&bad, &after[0]), (&after[0], &after[1])] {
        let received = send(&mut history, &[change.raw_bytes()]);
        assert_eq!(received.refused, [(Some(change.hash()), refusal(on))]);
    }
    // Before it, as orphans.
    let mut history = history_of(&mut doc);
    for change in [&after[1], &after[0]] {
        assert_eq!(send(&mut history, &[change.raw_bytes()]).refused, []);
    }
    let received = send(&mut history, &[bad.raw_bytes()]);
    let refused: Vec<_> = received
        .refused
        .iter()
        .map(|(hash, _)| hash.unwrap())
        .collect();
    assert_eq!(refused, [bad.hash(), after[0].hash(), after[1].hash()]);
}

#[test]
fn the_oldest_refused_change_is_forgotten_and_checked_again() {
    let mut doc = document();
    let mut history = history_of(&mut doc);
    let bad = altered(&mut doc, |c| c.start_op = 1.try_into().unwrap()).decode();
    let numbered = |n: usize| {
        let mut bad = bad.clone();
        bad.time = n as i64;
        Change::from(bad)
    };
    let refuse = |history: &mut History, n: usize| {
        let received = send(history, &[numbered(n).raw_bytes()]);
        let [(_, Refusal::StartOp { .. })] = received.refused[..] else {
            panic!("{:?}", received.refused);
        };
    };
    // What depends on a change that is remembered is refused; otherwise it waits.
    let remembers = |history: &mut History, n: usize| {
        let mut after = bad.clone();
        after.deps = vec![numbered(n).hash()];
        let received = send(history, &[Change::from(after).raw_bytes()]);
        received.refused.len() == 1
    };
    for n in 0..REFUSED_MAX {
        refuse(&mut history, n);
    }
    refuse(&mut history, REFUSED_MAX);
    assert!(!remembers(&mut history, 0));
    assert!(remembers(&mut history, 2), "only the oldest are forgotten");
}
