//! Aim: whatever happens to clients, relays, disks and connections, the promises hold.
//! Method: engines, and relays around histories, on disks in memory and over wires in virtual time.
//! One seed decides all that happens; then everything is healed, and all must agree and fall silent.
//!
//! `RECONVERGE_SIM_SEED` repeats one seed, `RECONVERGE_SIM_SEEDS` says how many are run.
//!
//! Absent: remote heads, which only the relay's shell and stock clients know; quarantine; a relay
//! whose limits of memory are reached; a client with a stock Automerge, which `convergence` has.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

mod checks;
mod client;
mod disk;
mod hostile;
mod network;
mod relay;
mod simulation;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use simulation::{Counts, Simulation};

/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 1000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one seed; its counts and its trace.
fn run(seed: u64) -> (Counts, u64) {
    let mut simulation = Simulation::new(seed);
    simulation.live();
    simulation.heal();
    (simulation.counts, simulation.trace)
}

/// Runs seeds on all cores until one fails; what came about in all of them, or the seed. `prepare`
/// is called in each thread.
fn run_all(seeds: Range<u64>, prepare: impl Fn() + Sync) -> Result<Counts, u64> {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(None::<u64>);
    let counts = Mutex::new(Counts::new());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        prepare();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failed.lock().unwrap().is_some() {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                Ok((of_seed, _)) => {
                    let mut counts = counts.lock().unwrap();
                    for (what, count) in of_seed {
                        let all = counts.entry(what).or_default();
                        let most = what.ends_with("at most");
                        *all = if most { count.max(*all) } else { *all + count };
                    }
                }
                Err(_) => {
                    let mut failed = failed.lock().unwrap();
                    *failed = Some(failed.map_or(seed, |other: u64| other.min(seed)));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    match failed.into_inner().unwrap() {
        Some(seed) => Err(seed),
        None => Ok(counts.into_inner().unwrap()),
    }
}

/// What every campaign of some length must have met, or it proves less than it says.
const MET: [&str; 24] = [
    "a change under the number of another",
    "a client loaded a graph",
    "a client separated from a relay",
    "a client stopped",
    "a client's commit failed",
    "a client's storage cloned",
    "a client's storage wiped",
    "a connection cut",
    "a document current",
    "a document deleted",
    "a document imported",
    "a document refused",
    "a document saved",
    "a full connection",
    "a hostile frame",
    "a job of the workshop",
    "a message that is not the last",
    "a presence message heard",
    "a relay crashed in a commit",
    "a relay restored from an older copy",
    "a relay's commit failed",
    "dead downwards",
    "dead upwards",
    "half-open",
];

#[test]
fn whatever_happens_the_promises_hold() {
    let repeated = from_environment("RECONVERGE_SIM_SEED");
    let seeds = from_environment("RECONVERGE_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds = repeated.map_or(0..seeds, |seed| seed..seed + 1);
    let all_is_met = seeds.end - seeds.start >= SEEDS;
    let counts = run_all(seeds, || {}).unwrap_or_else(|seed| {
        panic!(
            "failed; to repeat: RECONVERGE_SIM_SEED={seed} cargo test --release \
             --package reconverge-tests --test sim"
        )
    });
    for (what, count) in &counts {
        println!("{count:8} {what}");
    }
    for what in MET.iter().filter(|_| all_is_met) {
        assert!(counts.contains_key(what), "never met: {what}");
    }
}

#[test]
fn a_seed_repeats_all_that_happened() {
    for seed in 0..5 {
        assert_eq!(run(seed).1, run(seed).1, "seed {seed}");
    }
}

/// With each of these mistakes built in, the seeds above find it.
#[cfg(feature = "planted")]
#[test]
fn every_planted_bug_is_caught() {
    use reconverge::planted::{Bug, plant};
    // A campaign counts the seeds that catch each bug; otherwise the first one will do.
    let all = from_environment("RECONVERGE_SIM_PLANTED_SEEDS");
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let caught = run_all(0..SEEDS, || plant(Some(bug))).err();
        println!("{bug:?}: caught by seed {caught:?}");
        missed.extend(caught.is_none().then_some(bug));
        if let Some(seeds) = all {
            plant(Some(bug));
            let fails = |seed: &u64| catch_unwind(|| run(*seed)).is_err();
            let count = (0..seeds).filter(fails).count();
            plant(None);
            println!("{bug:?}: caught by {count} of {seeds} seeds");
        }
    }
    assert_eq!(missed, [], "not caught within {SEEDS} seeds");
}
