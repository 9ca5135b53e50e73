//! Names of things: documents, peers, connections.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Longest document id in bytes. automerge-repo makes 16-byte ids (a UUID); applications that
/// bring their own id factory use up to 32 (a hash or a public key).
pub const DOCUMENT_ID_BYTES_MAX: usize = 32;

/// Longest peer id in bytes. Stock clients use about 40.
pub const PEER_ID_BYTES_MAX: usize = 256;

/// The name of a document: 1 to 32 bytes, shown as base58check.
///
/// ```
/// use reconverge::id::DocumentId;
/// let id = DocumentId::new(&[7; 16]).unwrap();
/// let shown = id.to_string();
/// assert_eq!(shown.parse::<DocumentId>().unwrap(), id);
/// assert_eq!(format!("automerge:{shown}").parse::<DocumentId>().unwrap(), id);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentId {
    // Unused bytes are zero, so the derived comparisons are right.
    bytes: [u8; DOCUMENT_ID_BYTES_MAX],
    len: u8,
}

/// Why a text or a byte string is not a document id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentIdError {
    /// Not 1 to 32 bytes.
    #[error("a document id has 1 to {DOCUMENT_ID_BYTES_MAX} bytes, not {0}")]
    Length(usize),
    /// Neither base58check nor a UUID.
    #[error("not a document id: \"{}\" is neither base58check nor a uuid", .0.escape_default())]
    Text(String),
}

impl DocumentId {
    /// A document id of these bytes.
    ///
    /// # Errors
    /// Unless there are 1 to [`DOCUMENT_ID_BYTES_MAX`] of them.
    pub fn new(id: &[u8]) -> Result<Self, DocumentIdError> {
        if id.is_empty() || id.len() > DOCUMENT_ID_BYTES_MAX {
            return Err(DocumentIdError::Length(id.len()));
        }
        let mut bytes = [0; DOCUMENT_ID_BYTES_MAX];
        bytes[..id.len()].copy_from_slice(id);
        let len = u8::try_from(id.len()).expect("at most 32");
        Ok(Self { bytes, len })
    }

    /// The id's bytes, as they were given.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checked = [self.as_bytes(), &checksum(self.as_bytes())].concat();
        f.write_str(&bs58::encode(checked).into_string())
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DocumentId({self})")
    }
}

impl FromStr for DocumentId {
    type Err = DocumentIdError;

    /// Reads base58check, a bare UUID (automerge-repo's oldest form), or either behind
    /// `automerge:`.
    fn from_str(text: &str) -> Result<Self, DocumentIdError> {
        let shown = text.strip_prefix("automerge:").unwrap_or(text);
        // 32 bytes and a checksum of 4 are at most 50 base58 digits; longer text is not decoded,
        // because base58 takes quadratic time.
        if shown.len() <= 64 {
            if let Some(uuid) = bytes_of_uuid(shown) {
                return Self::new(&uuid);
            }
            if let Ok(checked) = bs58::decode(shown).into_vec()
                && let Some((id, sum)) = checked.split_last_chunk()
                && *sum == checksum(id)
            {
                return Self::new(id);
            }
        }
        Err(DocumentIdError::Text(shown.chars().take(64).collect()))
    }
}

/// That of base58check. The one of `bs58` would put a second SHA-256 into the module for browsers.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let hash = Sha256::digest(Sha256::digest(bytes));
    [hash[0], hash[1], hash[2], hash[3]]
}

fn bytes_of_uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 || !text.is_ascii() {
        return None;
    }
    let mut digits = 0u128;
    for (at, c) in text.char_indices() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if c != '-' {
                return None;
            }
            continue;
        }
        digits = digits << 4 | u128::from(c.to_digit(16)?);
    }
    Some(digits.to_be_bytes())
}

/// The name that a peer gives itself in the handshake; one per browser tab or process.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(Arc<str>);

impl PeerId {
    /// A peer id, or `None` when it is empty, longer than [`PEER_ID_BYTES_MAX`] or has control
    /// characters, with which a peer could write lines of its own into a log.
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        let fits = !id.is_empty() && id.len() <= PEER_ID_BYTES_MAX;
        (fits && !id.chars().any(char::is_control)).then(|| Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.0)
    }
}

/// One connection of a relay, never used again after it closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// Stands for nobody among the senders of changes.
    pub(crate) const NOBODY: Self = Self(u64::MAX);
}

/// Documents that belong together: the unit of access and of routing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Space(Arc<str>);

/// Longest space name in bytes.
pub const SPACE_BYTES_MAX: usize = 128;

impl Space {
    /// A space, or `None` when the name is empty, longer than [`SPACE_BYTES_MAX`] or has control
    /// characters.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= SPACE_BYTES_MAX;
        (fits && !name.chars().any(char::is_control)).then(|| Self(name.into()))
    }

    /// The space's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Space {
    fn default() -> Self {
        Self("default".into())
    }
}

/// What a peer may do with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Nothing: the document is answered as if it did not exist.
    None,
    /// Receive it; its own changes are refused.
    Read,
    /// Receive and change it.
    Write,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legacy_uuid_names_the_same_document_as_its_base58check() {
        let uuid: DocumentId = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        assert_eq!(uuid.as_bytes().len(), 16);
        assert_eq!(uuid.to_string().parse::<DocumentId>().unwrap(), uuid);
    }

    #[test]
    fn an_id_is_shown_as_other_implementations_show_it() {
        // The address of Bitcoin's first block.
        let shown = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";
        let id: DocumentId = shown.parse().unwrap();
        assert_eq!(id.as_bytes().len(), 21);
        assert_eq!(id.as_bytes()[..3], [0x00, 0x62, 0xe9]);
        assert_eq!(id.to_string(), shown);
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in [
            "",
            "automerge:",
            "0OIl",
            "4NMNNkMhL8jXrdJ9jamS58PAVdXv",
            &"z".repeat(10_000),
        ] {
            assert!(text.parse::<DocumentId>().is_err(), "{text}");
        }
        assert!(DocumentId::new(&[0; 33]).is_err());
    }
}
