//! LEB128 numbers, as Automerge's formats and ours write them.

/// The unsigned number at the start of `input` and how many bytes it takes; `None` when it is cut
/// short or above 64 bits.
#[must_use]
pub fn read_unsigned(input: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for (at, byte) in input.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && *byte > 1 {
            return None;
        }
        number |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    None
}

/// The signed number at the start of `input` and how many bytes it takes.
#[must_use]
pub fn read_signed(input: &[u8]) -> Option<(i64, usize)> {
    let mut number = 0i128;
    for (at, byte) in input.iter().take(10).enumerate() {
        number |= i128::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if byte & 0x40 != 0 {
                number -= 1 << (7 * (at + 1));
            }
            return Some((i64::try_from(number).ok()?, at + 1));
        }
    }
    None
}

/// Appends an unsigned number.
pub fn push_unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A cursor over bytes of our own or Automerge's making; every read may find them cut short.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next unsigned number.
    pub fn unsigned(&mut self) -> Option<u64> {
        let (number, len) = read_unsigned(self.0)?;
        self.0 = &self.0[len..];
        Some(number)
    }

    /// The next unsigned number, if it fits.
    pub fn number<N: TryFrom<u64>>(&mut self) -> Option<N> {
        N::try_from(self.unsigned()?).ok()
    }

    /// The next signed number.
    pub fn signed(&mut self) -> Option<i64> {
        let (number, len) = read_signed(self.0)?;
        self.0 = &self.0[len..];
        Some(number)
    }

    /// Bytes behind their length.
    pub fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?;
        self.take(len)
    }

    /// A 32-byte hash.
    pub fn hash(&mut self) -> Option<automerge::ChangeHash> {
        Some(automerge::ChangeHash(self.take(32)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_overlong_ones_do_not() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            push_unsigned(&mut bytes, number);
            assert_eq!(read_unsigned(&bytes), Some((number, bytes.len())));
            assert_eq!(read_unsigned(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(read_unsigned(&[0xff; 11]), None);
        assert_eq!(read_signed(&[0x7f]), Some((-1, 1)));
        assert_eq!(read_signed(&[0x3f]), Some((63, 1)));
        assert_eq!(read_signed(&[0x80, 0x7f]), Some((-128, 2)));
        assert_eq!(read_signed(&[0xff; 10]), None);
    }
}
