//! What a hostile peer sends as changes: what it does to a document, and what is wrong with it.

use std::io::Write;
use std::sync::LazyLock;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Change, ChangeHash, ROOT};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use reconverge::history::chunk::Chunk;
use reconverge_tests::Random;
use reconverge_tests::forge::{self, chunk, chunk_of_hash};

/// A chunk as it is sent, and what taking it in may cost by what it declares.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    /// None of what is no change.
    pub(crate) hash: Option<ChangeHash>,
    /// To how many bytes it inflates, and its operations.
    pub(crate) inflated: u64,
    pub(crate) operations: u64,
}

impl Piece {
    fn of(change: &Change) -> Self {
        Self {
            bytes: change.raw_bytes().to_vec(),
            hash: Some(change.hash()),
            inflated: 0,
            operations: change.len() as u64,
        }
    }

    fn bad(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            hash: None,
            inflated: 0,
            operations: 0,
        }
    }

    /// The same change, deflated, with extra bytes behind it.
    fn bomb(change: &Change, extra: usize) -> Self {
        let data = [data_of(change), vec![0; extra]].concat();
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&data).unwrap();
        let deflated = encoder.finish().unwrap();
        Self {
            bytes: chunk_of_hash(2, &deflated, 1, &data),
            hash: reconverge::history::chunk::chunk_hash(&chunk(1, &data)),
            inflated: data.len() as u64,
            operations: change.len() as u64,
        }
    }
}

fn data_of(change: &Change) -> Vec<u8> {
    let (chunk, _) = Chunk::split(change.raw_bytes()).unwrap();
    chunk.data.to_vec()
}

fn by(actor: u64) -> AutoCommit {
    AutoCommit::new().with_actor(ActorId::from(Random::new(actor).bytes()))
}

/// Changes that depend on each other, or not, in an order in which they can enter.
pub(crate) type Lane = Vec<Piece>;

pub(crate) static LANES: LazyLock<Vec<Lane>> = LazyLock::new(|| {
    vec![
        chain(400, 8),
        chain(60, 2_000),
        crowd(200),
        offshoots(150),
        ladder(12),
        bombs(),
        forks(100),
        declared(),
        nonsense(),
    ]
});

/// Each on top of the one before.
fn chain(len: usize, size: usize) -> Lane {
    let (mut doc, mut random) = (by(len as u64), Random::new(1));
    let one = |doc: &mut AutoCommit, random: &mut Random| {
        doc.put(ROOT, "n", random.noise(size)).unwrap();
        doc.commit();
        Piece::of(&doc.get_last_local_change().unwrap())
    };
    (0..len).map(|_| one(&mut doc, &mut random)).collect()
}

/// By as many who do not know each other, and one that merges all of them.
fn crowd(len: usize) -> Lane {
    let mut all = by(1_000);
    let mut lane = Lane::new();
    for n in 0..len {
        let mut doc = by(1_001 + n as u64);
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
        let change = doc.get_last_local_change().unwrap();
        lane.push(Piece::of(&change));
        all.apply_changes([change]).unwrap();
    }
    all.put(ROOT, "n", 0).unwrap();
    all.commit();
    lane.push(Piece::of(&all.get_last_local_change().unwrap()));
    lane
}

/// A chain, and changes of others on each of its older ones.
fn offshoots(len: usize) -> Lane {
    let (mut doc, mut lane, mut off) = (by(2_000), Lane::new(), Lane::new());
    for n in 0..len {
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
        lane.push(Piece::of(&doc.get_last_local_change().unwrap()));
        let mut other = doc
            .fork()
            .with_actor(ActorId::from(Random::new(n as u64).bytes()));
        other.put(ROOT, "m", n as u64).unwrap();
        other.commit();
        off.push(Piece::of(&other.get_last_local_change().unwrap()));
    }
    lane.append(&mut off);
    lane
}

/// Layers of changes each of which depends on all of the layer before.
fn ladder(layers: usize) -> Lane {
    const WIDTH: u64 = 12;
    let (mut all, mut lane) = (by(3_000), Lane::new());
    for layer in 0..layers as u64 {
        let before = all.clone();
        for n in 0..WIDTH {
            let actor = Random::new(3_001 + layer * WIDTH + n).bytes();
            let mut doc = before.clone().with_actor(ActorId::from(actor));
            doc.put(ROOT, "n", n).unwrap();
            doc.commit();
            let change = doc.get_last_local_change().unwrap();
            lane.push(Piece::of(&change));
            all.apply_changes([change]).unwrap();
        }
    }
    lane
}

/// Each inflates to up to a thousand times its size; some wait for others.
fn bombs() -> Lane {
    let mut lane = Lane::new();
    for (n, extra) in [1_000, 30_000, 100_000, 300_000, 1_000_000]
        .into_iter()
        .enumerate()
    {
        let mut doc = by(4_000 + n as u64);
        for _ in 0..2 {
            doc.put(ROOT, "n", n as u64).unwrap();
            doc.commit();
            doc.put(ROOT, "m", "x".repeat(extra / 10)).unwrap();
            doc.commit();
        }
        let changes = doc.get_changes(&[]);
        lane.push(Piece::of(&changes[0]));
        lane.push(Piece::bomb(&changes[1], 0));
        // On top of a change that is never sent.
        lane.push(Piece::bomb(changes.last().unwrap(), extra));
        lane.push(Piece::bomb(&changes[0], extra));
    }
    lane
}

/// One author's first change, again and again.
fn forks(len: usize) -> Lane {
    let one = |n: usize| {
        let mut doc = by(5_000);
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
        let mut next = doc
            .fork()
            .with_actor(ActorId::from(Random::new(n as u64).bytes()));
        next.put(ROOT, "m", 1).unwrap();
        next.commit();
        let changes = [doc.get_last_local_change(), next.get_last_local_change()];
        changes.map(|change| Piece::of(&change.unwrap()))
    };
    (0..len).flat_map(one).collect()
}

/// Few bytes that claim many operations.
fn declared() -> Lane {
    let one = |n: u64| {
        let (actor, count) = (n as u8, 64 << n);
        let made = [
            forge::values(actor, count),
            forge::objects(actor + 100, count),
        ];
        made.map(|data| {
            let bytes = chunk(1, &data);
            Piece {
                hash: reconverge::history::chunk::chunk_hash(&bytes),
                bytes,
                inflated: 0,
                operations: count,
            }
        })
    };
    (0..10).flat_map(one).collect()
}

/// No changes, or such as nobody should have made.
fn nonsense() -> Lane {
    let (document, unsound, honest) = forge::unsound([9; 16]);
    let good: Vec<_> = document.iter().chain([&unsound, &honest]).collect();
    let mut lane: Lane = good.iter().copied().map(Piece::of).collect();
    let mut random = Random::new(6_000);
    for change in good {
        let bytes = change.raw_bytes();
        lane.push(Piece::bad(bytes[..bytes.len() / 2].to_vec()));
        let data = data_of(change);
        for kind in [0, 2, 3, 4] {
            lane.push(Piece::bad(chunk(kind, &data)));
        }
        for _ in 0..8 {
            let mut data = data.clone();
            let at = random.below(data.len() as u64) as usize;
            data[at] = random.number() as u8;
            // What its counts claim now is bounded by what is checked, not by what is here.
            lane.push(Piece::bad(chunk(1, &data)));
        }
    }
    lane.push(Piece::bad(vec![0]));
    lane.push(Piece::bad(random.noise(100)));
    lane
}
