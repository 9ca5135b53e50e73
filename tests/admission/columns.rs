//! The bytes of a change, with other columns than Automerge wrote.

use std::io::Write;

use reconverge::history::chunk::Chunk;
use reconverge::leb::{Reader, push_unsigned};

/// What is behind a chunk's header.
pub(crate) fn data_of(bytes: &[u8]) -> &[u8] {
    Chunk::split(bytes).unwrap().0.data
}

pub(crate) fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A change's data behind the header: what comes before the other actors, and all from there on.
fn split_at_actors(data: &[u8]) -> (&[u8], &[u8]) {
    let mut input = Reader(data);
    for _ in 0..input.unsigned().unwrap() {
        input.hash().unwrap();
    }
    input.prefixed().unwrap();
    input.unsigned().unwrap();
    input.unsigned().unwrap();
    input.signed().unwrap();
    input.prefixed().unwrap();
    data.split_at(data.len() - input.0.len())
}

/// A change's data up to its columns, the columns behind their specifications, and what follows.
type Columns<'a> = (&'a [u8], Vec<(u64, &'a [u8])>, &'a [u8]);

pub(crate) fn split_columns(data: &[u8]) -> Columns<'_> {
    let mut input = Reader(split_at_actors(data).1);
    for _ in 0..input.unsigned().unwrap() {
        input.prefixed().unwrap();
    }
    let header = &data[..data.len() - input.0.len()];
    let count = input.unsigned().unwrap();
    let specs: Vec<(u64, usize)> = (0..count)
        .map(|_| (input.unsigned().unwrap(), input.number().unwrap()))
        .collect();
    let columns = specs
        .into_iter()
        .map(|(spec, len)| (spec, input.take(len).unwrap()))
        .collect();
    (header, columns, input.0)
}

/// A change's data with one of its columns replaced, or added.
pub(crate) fn with_column(data: &[u8], spec: u64, column: &[u8]) -> Vec<u8> {
    let (header, mut columns, rest) = split_columns(data);
    columns.retain(|(found, _)| *found != spec);
    columns.push((spec, column));
    columns.sort_by_key(|(spec, _)| *spec);
    let mut out = header.to_vec();
    push_unsigned(&mut out, columns.len() as u64);
    for (spec, column) in &columns {
        push_unsigned(&mut out, *spec);
        push_unsigned(&mut out, column.len() as u64);
    }
    for (_, column) in &columns {
        out.extend_from_slice(column);
    }
    out.extend_from_slice(rest);
    out
}

pub(crate) fn with_columns(data: &[u8], columns: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let with = |data: Vec<u8>, (spec, column): &(u64, Vec<u8>)| with_column(&data, *spec, column);
    columns.iter().fold(data.to_vec(), with)
}

/// The data of a change that names that many other actors.
pub(crate) fn with_actors(data: &[u8], actors: usize) -> Vec<u8> {
    let (header, rest) = split_at_actors(data);
    let mut out = header.to_vec();
    push_unsigned(&mut out, actors as u64);
    for n in 0..actors as u32 {
        out.push(4);
        out.extend_from_slice(&n.to_be_bytes());
    }
    let rest = rest.strip_prefix(&[0]).expect("it names no other actors");
    out.extend_from_slice(rest);
    out
}

/// A run-length column: `count` times the same value.
pub(crate) fn run(count: u64, value: &[u8]) -> Vec<u8> {
    let mut run = Vec::new();
    push_unsigned(&mut run, count);
    if run.last().unwrap() & 0x40 != 0 {
        // The count is signed.
        *run.last_mut().unwrap() |= 0x80;
        run.push(0);
    }
    run.extend_from_slice(value);
    run
}

pub(crate) fn ones(count: u64) -> Vec<u8> {
    run(count, &[1])
}

pub(crate) const KEY_STRING: u64 = 0x15;
pub(crate) const INSERT: u64 = 0x34;
pub(crate) const ACTION: u64 = 0x42;
pub(crate) const VALUE_KIND: u64 = 0x56;
pub(crate) const PRED_COUNT: u64 = 0x70;
pub(crate) const PRED_ACTOR: u64 = 0x71;
pub(crate) const PRED_COUNTER: u64 = 0x73;
