//! The columns of a change: runs of values, of differences and of flags.
//!
//! A few bytes of runs can claim any number of rows, so what counts rows costs what its bytes cost.

use super::error::ChangeError;
use crate::leb::{read_signed, read_unsigned};

/// Which column is which.
pub(super) mod spec {
    pub(in super::super) const OBJ_ACTOR: u32 = 0x01;
    pub(in super::super) const OBJ_COUNTER: u32 = 0x02;
    pub(in super::super) const KEY_ACTOR: u32 = 0x11;
    pub(in super::super) const KEY_COUNTER: u32 = 0x13;
    pub(in super::super) const KEY_STRING: u32 = 0x15;
    pub(in super::super) const INSERT: u32 = 0x34;
    pub(in super::super) const ACTION: u32 = 0x42;
    pub(in super::super) const PRED_COUNT: u32 = 0x70;
    pub(in super::super) const PRED_ACTOR: u32 = 0x71;
    pub(in super::super) const PRED_COUNTER: u32 = 0x73;
    /// The bit that marks a deflated column, which a change must not have.
    pub(in super::super) const DEFLATED: u32 = 0x08;
    /// The bits that say what is in a column; those above say which attribute it belongs to.
    pub(in super::super) const KIND: u32 = 0x07;
    /// The kind of a column that takes those after it, of the same attribute, for its own.
    pub(in super::super) const GROUP: u32 = 0;
    /// The last attribute that Automerge 0.12 knows: names of marks.
    pub(in super::super) const KNOWN_MAX: u32 = 0xaf;
}

pub(super) type Read<V> = fn(&[u8]) -> Option<(V, usize)>;

pub(super) fn read_u64(input: &[u8]) -> Option<(u64, usize)> {
    read_unsigned(input)
}

fn read_i64(input: &[u8]) -> Option<(i64, usize)> {
    read_signed(input)
}

/// A name; only whether there is one matters here.
pub(super) fn read_text(input: &[u8]) -> Option<((), usize)> {
    let (len, header) = read_unsigned(input)?;
    let end = header.checked_add(usize::try_from(len).ok()?)?;
    let text = input.get(header..end)?;
    std::str::from_utf8(text).ok()?;
    Some(((), end))
}

#[derive(Debug, Clone, Copy)]
enum Run<V> {
    Same(Option<V>),
    Literal,
}

/// A run-length column: a signed count, then (above 0) one value repeated, (below 0) that many
/// values, or (0) an unsigned count of nulls. A column that ended goes on with nulls.
#[derive(Debug, Clone)]
pub(super) struct Runs<'a, V> {
    input: &'a [u8],
    read: Read<V>,
    left: u64,
    run: Run<V>,
}

impl<'a, V: Copy> Runs<'a, V> {
    pub(super) fn new(input: &'a [u8], read: Read<V>) -> Self {
        Self {
            input,
            read,
            left: 0,
            run: Run::Same(None),
        }
    }

    fn value(&mut self) -> Result<V, ChangeError> {
        let (value, len) = (self.read)(self.input).ok_or(ChangeError::Malformed("column value"))?;
        self.input = &self.input[len..];
        Ok(value)
    }

    fn begin_run(&mut self) -> Result<bool, ChangeError> {
        const CUT: ChangeError = ChangeError::Malformed("column cut short");
        while self.left == 0 {
            if self.input.is_empty() {
                return Ok(false);
            }
            let (count, len) = read_signed(self.input).ok_or(CUT)?;
            self.input = &self.input[len..];
            if count == 0 {
                let (nulls, len) = read_unsigned(self.input).ok_or(CUT)?;
                self.input = &self.input[len..];
                (self.left, self.run) = (nulls, Run::Same(None));
            } else if count > 0 {
                self.run = Run::Same(Some(self.value()?));
                self.left = count.unsigned_abs();
            } else {
                (self.left, self.run) = (count.unsigned_abs(), Run::Literal);
            }
        }
        Ok(true)
    }

    pub(super) fn next(&mut self) -> Result<Option<V>, ChangeError> {
        if !self.begin_run()? {
            return Ok(None);
        }
        self.left -= 1;
        match self.run {
            Run::Same(value) => Ok(value),
            Run::Literal => self.value().map(Some),
        }
    }

    /// The length of the next run, its values skipped: costs what its bytes cost, not its rows.
    fn next_run(&mut self) -> Result<Option<u64>, ChangeError> {
        if !self.begin_run()? {
            return Ok(None);
        }
        let run = self.left;
        if matches!(self.run, Run::Literal) {
            for _ in 0..run {
                self.value()?;
            }
        }
        self.left = 0;
        Ok(Some(run))
    }
}

/// A run-length column of differences; nulls leave the sum alone.
#[derive(Debug, Clone)]
pub(super) struct Deltas<'a> {
    runs: Runs<'a, i64>,
    sum: i64,
}

impl<'a> Deltas<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self {
            runs: Runs::new(input, read_i64),
            sum: 0,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<i64>, ChangeError> {
        let Some(delta) = self.runs.next()? else {
            return Ok(None);
        };
        let sum = self
            .sum
            .checked_add(delta)
            .ok_or(ChangeError::Limit("counter"))?;
        self.sum = sum;
        Ok(Some(sum))
    }
}

/// Run lengths of false and true in turn; a column that ended goes on with false.
#[derive(Debug, Clone)]
pub(super) struct Booleans<'a> {
    input: &'a [u8],
    left: u64,
    value: bool,
}

impl<'a> Booleans<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            left: 0,
            value: true,
        }
    }

    pub(super) fn next(&mut self) -> Result<bool, ChangeError> {
        while self.left == 0 {
            if self.input.is_empty() {
                return Ok(false);
            }
            let run = read_unsigned(self.input).ok_or(ChangeError::Malformed("flags"))?;
            self.input = &self.input[run.1..];
            self.left = run.0;
            self.value = !self.value;
        }
        self.left -= 1;
        Ok(self.value)
    }
}

/// How many rows a run-length column of numbers has. Costs what its bytes cost, not its rows.
pub(crate) fn count_rows(column: &[u8]) -> Option<u64> {
    let mut runs = Runs::new(column, read_u64);
    let mut rows = 0u64;
    while let Some(run) = runs.next_run().ok()? {
        rows = rows.saturating_add(run);
    }
    Some(rows)
}

/// The sum of a run-length column of numbers, nulls left out. Costs what its bytes cost.
pub(super) fn sum_of_rows(column: &[u8]) -> Result<u64, ChangeError> {
    let mut runs = Runs::new(column, read_u64);
    let mut sum = 0u64;
    while runs.begin_run()? {
        let (times, run) = match runs.run {
            Run::Same(value) => (std::mem::take(&mut runs.left), value),
            Run::Literal => {
                runs.left -= 1;
                (1, Some(runs.value()?))
            }
        };
        sum = sum.saturating_add(times.saturating_mul(run.unwrap_or_default()));
    }
    Ok(sum)
}
