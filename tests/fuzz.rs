//! Whatever bytes come, from a peer or from the disk, what reads them keeps its promises.
//!
//! Each target of [`reconverge_tests::fuzz`] runs over its corpus, and over inputs that seeds make
//! of it, one seed one input, counted from 0; so the run is the same every time.
//!
//! * `RECONVERGE_FUZZ_TIMES` makes it as many times longer (1);
//! * `RECONVERGE_FUZZ_TARGET` and `RECONVERGE_FUZZ_SEED` repeat one input, as printed.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

mod counting;

use std::panic::{AssertUnwindSafe, catch_unwind};

use counting::allocated;
use reconverge::history::DOCUMENT_OBJECTS_MAX;
use reconverge_tests::forge;
use reconverge_tests::fuzz::{TARGETS, Target};

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn check_memory(target: &Target, input: &[u8]) {
    let found = allocated(|| (target.read)(input));
    let max = (target.allocates_max)(input.len());
    assert!(
        found <= max,
        "{}: reading {} bytes allocated {found}, more than {max}",
        target.name,
        input.len()
    );
}

fn check(target: &Target, input: &[u8]) -> bool {
    check_memory(target, input);
    (target.run)(input)
}

/// Whether this run is for one target only, and not this one.
fn is_left_out(target: &Target) -> bool {
    from_environment::<String>("RECONVERGE_FUZZ_TARGET").is_some_and(|only| only != target.name)
}

#[test]
fn honest_input_is_taken() {
    for target in TARGETS {
        // The first time is for what is made once.
        let taken = |input: &&Vec<u8>| {
            (target.run)(input);
            check(target, input)
        };
        let corpus = (target.corpus)();
        let taken = corpus.iter().filter(taken).count();
        println!("{}: {taken} of {} taken", target.name, corpus.len());
        assert!(2 * taken > corpus.len(), "{}: too few", target.name);
    }
}

fn mutated(target: &Target) {
    let one = from_environment("RECONVERGE_FUZZ_SEED");
    let times: u64 = from_environment("RECONVERGE_FUZZ_TIMES").unwrap_or(1);
    let seeds = one.map_or(0..target.runs * times, |seed| seed..seed + 1);
    let (mut tried, mut taken) = (0u64, 0u64);
    for seed in seeds {
        let input = target.input(seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| check(target, &input)));
        let Ok(accepted) = outcome else {
            panic!(
                "repeat with RECONVERGE_FUZZ_TARGET={} RECONVERGE_FUZZ_SEED={seed} \
                 cargo test --release --workspace --test fuzz mutated",
                target.name
            );
        };
        tried += 1;
        taken += u64::from(accepted);
    }
    println!("{}: {tried} inputs, {taken} of them taken", target.name);
    // Neither all nor none: then the mutations would miss what they are for.
    assert!(one.is_some() || (0 < taken && taken < tried));
}

#[test]
fn mutated_input_does_no_harm() {
    for target in TARGETS.iter().filter(|target| !is_left_out(target)) {
        mutated(target);
    }
}

/// Input that is large only in what it claims, or that is as deep as it is long.
#[test]
fn giant_claims_allocate_no_more_than_others() {
    const LEN: usize = 16 * 1024 * 1024;
    let target = |name: &str| TARGETS.iter().find(|target| target.name == name).unwrap();
    let field = |value: &[u8]| [&b"\xa2\x64type\x65leave\x61x"[..], value].concat();
    for nested in [
        &b"\x81"[..],
        b"\x9f",
        b"\x82\x9f",
        b"\xbf\x61a",
        b"\xc1",
        b"\xa1\x61a",
    ] {
        let input = field(&nested.repeat(LEN / nested.len()));
        assert!(!check(target("frame"), &input));
    }
    for key in [&b"\x63add"[..], b"\x68newHeads", b"\x66hashes"] {
        for claim in [
            &b"\x9b\x10\0\0\0\0\0\0\0"[..],
            b"\xbb\x10\0\0\0\0\0\0\0",
            b"\x9f",
        ] {
            let input = [&b"\xa1"[..], key, claim, &[0x60; 1 << 20]].concat();
            assert!(!check(target("frame"), &input));
        }
    }
    let huge = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    for fields in 0..4 {
        let input = [&b"\x42\0\0\0"[..=fields], huge, &vec![0; LEN]].concat();
        assert!(!check(target("sync"), &input));
    }
    for name in ["record", "row", "stored", "change", "document"] {
        for at in 0..60 {
            let honest = &(target(name).corpus)()[0];
            let (start, end) = honest.split_at(at.min(honest.len() - 1));
            for number in [&huge[..], b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x07"] {
                check(target(name), &[start, number, &end[1..]].concat());
            }
        }
    }
}

/// A few bytes of runs make as many objects as a document may have, beside those that it has.
#[test]
fn objects_take_memory_in_proportion_to_their_change() {
    let data = forge::objects(3, DOCUMENT_OBJECTS_MAX as u64 - 1_000);
    let targets = || TARGETS.iter().filter(|target| target.name == "change");
    for target in targets() {
        assert!((target.run)(&data), "it enters");
        check_memory(target, &data);
    }
    assert_eq!(targets().count(), 1);
}
