//! A peer that sends broken frames, and changes of its own making.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ChangeHash, ROOT};
use reconverge::id::DocumentId;
use reconverge::protocol::{self, Ephemeral, Message, PeerMetadata, SyncEnvelope, SyncMessage};
use reconverge_tests::world::sync_message;
use reconverge_tests::{Random, forge};

pub(crate) const NAME: &str = "mallory";

pub(crate) fn join() -> Vec<u8> {
    protocol::encode(&Message::Join {
        sender: NAME,
        metadata: PeerMetadata::default(),
        speaks_v1: true,
    })
}

/// What it sends next, and the changes among it that are whole and of its own making.
pub(crate) fn frame(
    random: &mut Random,
    documents: &[DocumentId],
    overheard: &[Vec<u8>],
    names: &[&str],
) -> (Vec<u8>, Option<(DocumentId, ChangeHash)>) {
    let document = documents[random.below(documents.len() as u64) as usize];
    let any = |random: &mut Random| ChangeHash(random.noise(32).try_into().expect("32 bytes"));
    let say = |of: &str, data: &[u8]| {
        protocol::encode(&Message::Sync(SyncEnvelope {
            sender: NAME,
            target: "relay",
            document: of.into(),
            data,
            request: false,
        }))
    };
    let in_own_name = |data: &[u8]| say(&document.to_string(), data);
    let overheard = match overheard.len() as u64 {
        0 => join(),
        len => overheard[random.below(len) as usize].clone(),
    };
    let (of, data) = match protocol::decode(&overheard) {
        Ok(Message::Sync(sync)) => (sync.document.to_string(), sync.data.to_vec()),
        _ => (document.to_string(), sync_message(&[], &[], &[])),
    };
    let mut made = None;
    let frame = match random.below(14) {
        0 => {
            let len = random.below(200) as usize;
            random.noise(len)
        }
        1 => mutated(random, overheard),
        2 | 3 => {
            let data = mutated(random, data);
            say(&of, &data)
        }
        4 => say(&of, &data),
        5 | 6 => {
            let mut own = change(random, 1);
            let bytes = own.remove(0);
            made = Some((document, bytes.1));
            in_own_name(&sync_message(&[bytes.1], &[], &[&bytes.0]))
        }
        7 | 8 => {
            // It lacks what it depends on.
            let own = change(random, 2);
            in_own_name(&sync_message(&[own[1].1], &[], &[&own[1].0]))
        }
        9 => {
            let noise = random.noise(40);
            let chunk = forge::chunk(random.below(4) as u8, &noise);
            in_own_name(&sync_message(&[any(random)], &[], &[&chunk]))
        }
        10 => protocol::encode(&Message::Ephemeral(Ephemeral {
            sender: NAME,
            target: "relay",
            document: document.to_string().into(),
            count: random.below(4),
            session: "mallory's",
            data: &random.noise(8),
        })),
        11 => protocol::encode(&Message::Ephemeral(Ephemeral {
            sender: names[random.below(names.len() as u64) as usize],
            target: "relay",
            document: document.to_string().into(),
            count: u64::MAX,
            session: "mallory's",
            data: &random.noise(8),
        })),
        12 => in_own_name(&sync_message(&[any(random)], &[any(random)], &[])),
        _ => in_own_name(&sync_message(&[], &[], &[])),
    };
    (frame, made)
}

/// Another change under the number of one that was overheard.
pub(crate) fn forked(
    random: &mut Random,
    overheard: &[Vec<u8>],
) -> Option<(Vec<u8>, DocumentId, ChangeHash)> {
    let frame = &overheard[random.below(overheard.len() as u64) as usize..].first()?;
    let Ok(Message::Sync(sync)) = protocol::decode(frame) else {
        return None;
    };
    let message = SyncMessage::decode(sync.data).ok()?;
    let mut chunks = message.changes.iter();
    let change = chunks.find_map(|chunk| Change::try_from(*chunk).ok())?;
    let mut other = change.decode();
    other.time += 1;
    let other = Change::from(other);
    let frame = protocol::encode(&Message::Sync(SyncEnvelope {
        sender: NAME,
        target: "relay",
        document: sync.document.clone(),
        data: &sync_message(&[other.hash()], &[], &[other.raw_bytes()]),
        request: false,
    }));
    Some((frame, sync.document.parse().ok()?, other.hash()))
}

fn mutated(random: &mut Random, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(3) {
            0 if !bytes.is_empty() => bytes.truncate(at),
            1 => bytes.insert(at, random.number() as u8),
            _ if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    bytes
}

/// Changes of authors that nobody knows, each on top of the one before.
fn change(random: &mut Random, count: usize) -> Vec<(Vec<u8>, ChangeHash)> {
    let mut document = AutoCommit::new();
    let mut changes = Vec::new();
    for _ in 0..count {
        // Of one author, the number alone would tell that one before it is missing.
        document.set_actor(random.bytes().as_slice().into());
        document
            .put(ROOT, "mallory", random.number() as i64)
            .expect("the root takes a key");
        document.commit();
        let change = document.get_last_local_change().expect("just made");
        changes.push((change.raw_bytes().to_vec(), change.hash()));
    }
    changes
}
