//! Writes CBOR frames as JavaScript reads them best: without 64-bit integers, which would reach it as
//! `BigInt`.

use automerge::ChangeHash;
use minicbor::Encoder;

/// CBOR into memory, which cannot fail.
pub(super) struct FrameEncoder(Encoder<Vec<u8>>);

const INFALLIBLE: &str = "writing to memory does not fail";

impl FrameEncoder {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Encoder::new(Vec::with_capacity(capacity)))
    }

    pub(super) fn frame(self) -> Vec<u8> {
        self.0.into_writer()
    }

    /// The fields that every message begins with.
    pub(super) fn begin(&mut self, fields: u64, kind: &str, sender: Option<&str>) {
        self.map(fields);
        self.pair("type", kind);
        if let Some(sender) = sender {
            self.pair("senderId", sender);
        }
    }

    pub(super) fn map(&mut self, len: u64) {
        self.0.map(len).expect(INFALLIBLE);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.0.str(text).expect(INFALLIBLE);
    }

    pub(super) fn pair(&mut self, key: &str, value: &str) {
        self.text(key);
        self.text(value);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.bytes(bytes).expect(INFALLIBLE);
    }

    pub(super) fn hashes(&mut self, hashes: &[ChangeHash]) {
        self.0.array(hashes.len() as u64).expect(INFALLIBLE);
        for hash in hashes {
            self.bytes(&hash.0);
        }
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.0.bool(value).expect(INFALLIBLE);
    }

    /// The head of a byte string (CBOR major type 2) without its content.
    pub(super) fn bytes_header(&mut self, len: u64) {
        const MAJOR_BYTES: u8 = 2 << 5;
        let out = self.0.writer_mut();
        match len {
            0..=23 => out.push(MAJOR_BYTES | len as u8),
            24..=0xff => out.extend([MAJOR_BYTES | 24, len as u8]),
            0x100..=0xffff => {
                out.push(MAJOR_BYTES | 25);
                out.extend((len as u16).to_be_bytes());
            }
            _ => {
                out.push(MAJOR_BYTES | 26);
                out.extend(
                    u32::try_from(len)
                        .expect("a frame is below 4 GiB")
                        .to_be_bytes(),
                );
            }
        }
    }

    pub(super) fn number(&mut self, number: f64) {
        if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
            self.0.u32(number as u32).expect(INFALLIBLE);
        } else {
            self.0.f64(number).expect(INFALLIBLE);
        }
    }

    pub(super) fn strings(&mut self, strings: &[impl AsRef<str>]) {
        self.0.array(strings.len() as u64).expect(INFALLIBLE);
        for string in strings {
            self.text(string.as_ref());
        }
    }
}
