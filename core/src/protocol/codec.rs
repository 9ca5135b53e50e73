//! Bytes to [`Message`] and back.
//!
//! What stock peers really write, and this decoder therefore takes (cbor-x 1.6): map headers that
//! are longer than needed, `undefined` for an optional field, and 64-bit floats for integers above
//! 2^32. What this encoder avoids: 64-bit CBOR integers, which reach JavaScript as `BigInt`.

use std::borrow::Cow;

use minicbor::data::Type;
use minicbor::decode::Error as CborError;
use minicbor::{Decoder, Encoder};

use super::limits::{
    DOCUMENT_ID_TEXT_BYTES_MAX, EPHEMERAL_BYTES_MAX, HEAD_TEXT_BYTES_MAX, KIND_BYTES_MAX,
    NESTING_MAX, PROTOCOL_VERSION_BYTES_MAX, PROTOCOL_VERSIONS_MAX, REASON_BYTES_MAX,
    REFUSED_HASHES_MAX, REMOTE_HEADS_MAX, REMOTE_STORAGES_MAX, SESSION_ID_BYTES_MAX,
    STORAGE_ID_BYTES_MAX, SUBSCRIPTIONS_MAX,
};
use super::{ChangeHash, PROTOCOL_VERSION, ProtocolError};
use crate::id::{DocumentId, PEER_ID_BYTES_MAX};

/// One message of the automerge-repo protocol, borrowing from the frame it came in.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// A client asks to be let in; the first message on a connection.
    Join {
        /// The client's name for itself.
        sender: &'a str,
        /// What it says of itself.
        metadata: PeerMetadata<'a>,
        /// Whether version "1" is among those it speaks (also if it names none).
        speaks_v1: bool,
    },
    /// A server lets a client in.
    Peer {
        /// The server's name for itself.
        sender: &'a str,
        /// Who is let in.
        target: &'a str,
        /// What the server says of itself.
        metadata: PeerMetadata<'a>,
    },
    /// A server says why it closes the connection.
    Error {
        /// The server's name; `samod` leaves it out.
        sender: Option<&'a str>,
        /// Whom it addresses; `samod` leaves it out.
        target: Option<&'a str>,
        /// The reason, for a person to read.
        message: &'a str,
    },
    /// A peer says goodbye.
    Leave {
        /// Who leaves.
        sender: &'a str,
    },
    /// An Automerge sync message (`sync`, or `request` from a peer that has nothing of it yet).
    Sync(SyncEnvelope<'a>),
    /// "I do not have this document, nor does anybody whom I could ask."
    DocUnavailable {
        /// Who says so.
        sender: &'a str,
        /// Who asked.
        target: &'a str,
        /// The document's id as text.
        document: Cow<'a, str>,
    },
    /// A message that is passed on and not kept (presence).
    Ephemeral(Ephemeral<'a>),
    /// Which peers' storages the sender wants to hear the heads of.
    RemoteSubscriptionChange {
        /// Who asks.
        sender: &'a str,
        /// Whom it asks.
        target: &'a str,
        /// Storage ids to add.
        add: Vec<&'a str>,
        /// Storage ids to remove.
        remove: Vec<&'a str>,
    },
    /// The heads that some storages were last seen with.
    RemoteHeadsChanged(RemoteHeads<'a>),
    /// The server does not take some changes; only for peers that understand it.
    Refused(Refused<'a>),
    /// A type of which nothing else is read: one that this version does not know, which is skipped,
    /// or [`PING`](super::PING) and [`PONG`](super::PONG).
    Unknown {
        /// The `type`.
        kind: &'a str,
    },
}

/// The fields of `sync` and `request`.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncEnvelope<'a> {
    /// Who sends.
    pub sender: &'a str,
    /// For whom.
    pub target: &'a str,
    /// The document's id as text.
    pub document: Cow<'a, str>,
    /// The sync message's bytes.
    pub data: &'a [u8],
    /// Whether the type is `request`.
    pub request: bool,
}

/// The fields of `ephemeral`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ephemeral<'a> {
    /// The author, who need not be the one it came from.
    pub sender: &'a str,
    /// For whom.
    pub target: &'a str,
    /// The document's id as text.
    pub document: Cow<'a, str>,
    /// Counts the author's messages in this session, across documents.
    pub count: u64,
    /// The author's run.
    pub session: &'a str,
    /// The payload, itself CBOR.
    pub data: &'a [u8],
}

/// The fields of `remote-heads-changed`.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteHeads<'a> {
    /// Who sends.
    pub sender: &'a str,
    /// For whom.
    pub target: &'a str,
    /// The document's id as text.
    pub document: Cow<'a, str>,
    /// What is known, per storage.
    pub heads: Vec<HeadsOfStorage<'a>>,
}

/// The fields of `refused`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused<'a> {
    /// Who sends.
    pub sender: &'a str,
    /// For whom.
    pub target: &'a str,
    /// The document's id as text.
    pub document: Cow<'a, str>,
    /// The changes that are not taken, as far as they could be named and fit.
    pub hashes: Vec<ChangeHash>,
    /// Why, for a person to read.
    pub reason: &'a str,
}

/// One storage's heads of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadsOfStorage<'a> {
    /// The storage's id.
    pub storage: &'a str,
    /// The heads, each base58check of 32 bytes.
    pub heads: Vec<Cow<'a, str>>,
    /// When they were seen, in milliseconds since 1970.
    pub timestamp_ms: f64,
}

/// What a peer says of itself in the handshake.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerMetadata<'a> {
    /// The id of the storage behind it. A peer remembers across connections what we have of a
    /// document only if we present one.
    pub storage_id: Option<Cow<'a, str>>,
    /// Whether it keeps nothing.
    pub is_ephemeral: bool,
    /// The version of Reconverge's extensions that it understands, 0 for none.
    pub reconverge: u64,
}

/// Everything that any message may carry, before its type says what must be there.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a str>,
    sender: Option<&'a str>,
    target: Option<&'a str>,
    document: Option<Cow<'a, str>>,
    data: Option<&'a [u8]>,
    count: Option<u64>,
    session: Option<&'a str>,
    metadata: PeerMetadata<'a>,
    versions: Option<bool>,
    /// Whether it names a channel, as peers did before version 1.
    has_channel: bool,
    message: Option<&'a str>,
    add: Vec<&'a str>,
    remove: Vec<&'a str>,
    new_heads: Option<Vec<HeadsOfStorage<'a>>>,
    hashes: Vec<ChangeHash>,
    reason: Option<&'a str>,
}

/// Reads one frame.
///
/// # Errors
/// When the bytes are not one CBOR map, lack a field that their `type` needs, or exceed a limit.
/// A `type` that is not known is [`Message::Unknown`], no error.
pub fn decode(frame: &[u8]) -> Result<Message<'_>, ProtocolError> {
    let mut fields = Fields::default();
    let mut d = Decoder::new(frame);
    let mut map = Entries::open(&mut d)?;
    while let Some(key) = map.next(&mut d)? {
        fields.read(&mut d, key)?;
    }
    if d.position() != frame.len() {
        return Err(ProtocolError::Cbor("bytes after the message".into()));
    }
    fields.into_message()
}

impl<'a> Fields<'a> {
    fn read(&mut self, d: &mut Decoder<'a>, key: &str) -> Result<(), ProtocolError> {
        if is_absent(d)? {
            d.skip().map_err(malformed)?;
            return Ok(());
        }
        match key {
            "type" => self.kind = Some(read_text(d, "type", KIND_BYTES_MAX)?),
            "senderId" => self.sender = Some(read_text(d, "senderId", PEER_ID_BYTES_MAX)?),
            "targetId" => self.target = Some(read_text(d, "targetId", PEER_ID_BYTES_MAX)?),
            "documentId" => self.document = Some(read_document(d)?),
            "data" => self.data = Some(read_bytes(d)?),
            "channelId" => {
                self.has_channel = true;
                skip(d)?;
            }
            "count" => self.count = Some(read_number(d)? as u64),
            "sessionId" => {
                self.session = Some(read_text(d, "sessionId", SESSION_ID_BYTES_MAX)?);
            }
            "message" => self.message = Some(read_text(d, "message", REASON_BYTES_MAX)?),
            "peerMetadata" => self.metadata = read_metadata(d)?,
            "supportedProtocolVersions" => {
                let versions = read_texts(d, &VERSIONS)?;
                self.versions = Some(versions.contains(&PROTOCOL_VERSION));
            }
            "add" => self.add = read_texts(d, &SUBSCRIPTIONS)?,
            "remove" => self.remove = read_texts(d, &SUBSCRIPTIONS)?,
            "newHeads" => self.new_heads = Some(read_new_heads(d)?),
            "hashes" => self.hashes = read_hashes(d)?,
            "reason" => self.reason = Some(read_text(d, "reason", REASON_BYTES_MAX)?),
            _ => skip(d)?,
        }
        Ok(())
    }

    fn into_message(self) -> Result<Message<'a>, ProtocolError> {
        let Some(kind) = self.kind else {
            return Err(ProtocolError::Field {
                kind: String::new(),
                field: "type",
            });
        };
        if self.has_channel && self.document.is_none() && self.versions.is_none() {
            return Err(ProtocolError::BeforeV1);
        }
        let lacks = |field| ProtocolError::Field {
            kind: kind.chars().take(64).collect(),
            field,
        };
        let sender = self.sender.ok_or_else(|| lacks("senderId"));
        // Servers made before targets were checked leave it out, and nothing depends on it.
        let target = self.target.unwrap_or_default();
        let document = self.document.ok_or_else(|| lacks("documentId"));
        Ok(match kind {
            "join" => Message::Join {
                sender: sender?,
                metadata: self.metadata,
                speaks_v1: self.versions.unwrap_or(true),
            },
            "peer" => Message::Peer {
                sender: sender?,
                target,
                metadata: self.metadata,
            },
            "error" => Message::Error {
                sender: self.sender,
                target: self.target,
                message: self.message.unwrap_or_default(),
            },
            "leave" => Message::Leave { sender: sender? },
            "sync" | "request" => Message::Sync(SyncEnvelope {
                sender: sender?,
                target,
                document: document?,
                data: self.data.ok_or_else(|| lacks("data"))?,
                request: kind == "request",
            }),
            "doc-unavailable" => Message::DocUnavailable {
                sender: sender?,
                target,
                document: document?,
            },
            "ephemeral" => {
                let data = self.data.ok_or_else(|| lacks("data"))?;
                within(
                    "bytes in an ephemeral message",
                    data.len(),
                    EPHEMERAL_BYTES_MAX,
                )?;
                Message::Ephemeral(Ephemeral {
                    sender: sender?,
                    target,
                    document: document?,
                    count: self.count.ok_or_else(|| lacks("count"))?,
                    session: self.session.ok_or_else(|| lacks("sessionId"))?,
                    data,
                })
            }
            "remote-subscription-change" => Message::RemoteSubscriptionChange {
                sender: sender?,
                target,
                add: self.add,
                remove: self.remove,
            },
            "remote-heads-changed" => Message::RemoteHeadsChanged(RemoteHeads {
                sender: sender?,
                target,
                document: document?,
                heads: self.new_heads.ok_or_else(|| lacks("newHeads"))?,
            }),
            "refused" => Message::Refused(Refused {
                sender: sender?,
                target,
                document: document?,
                hashes: self.hashes,
                reason: self.reason.unwrap_or_default(),
            }),
            _ => Message::Unknown { kind },
        })
    }
}

// What follows is called in many places and read once in a message: it is not to be in each of them.

#[cold]
#[inline(never)]
fn malformed(error: CborError) -> ProtocolError {
    let what = if error.is_end_of_input() {
        "it ends too soon"
    } else if error.is_type_mismatch() {
        "another type is expected"
    } else {
        "it is malformed"
    };
    let at = error
        .position()
        .map_or_else(String::new, |at| format!(" at byte {at}"));
    ProtocolError::Cbor(format!("{what}{at}"))
}

#[inline(never)]
fn is_absent(d: &Decoder<'_>) -> Result<bool, ProtocolError> {
    Ok(matches!(
        d.datatype().map_err(malformed)?,
        Type::Null | Type::Undefined
    ))
}

/// Walks a map of either form.
struct Entries {
    /// How many there still are; `None`: until their end is marked.
    left: Option<u64>,
}

impl Entries {
    #[inline(never)]
    fn open(d: &mut Decoder<'_>) -> Result<Self, ProtocolError> {
        let left = d.map().map_err(malformed)?;
        Ok(Self { left })
    }

    /// The next key; its value must be read next. Values under keys that are not text are skipped.
    #[inline(never)]
    fn next<'a>(&mut self, d: &mut Decoder<'a>) -> Result<Option<&'a str>, ProtocolError> {
        loop {
            match &mut self.left {
                Some(0) => return Ok(None),
                Some(left) => *left -= 1,
                None if d.datatype().map_err(malformed)? == Type::Break => {
                    d.skip().map_err(malformed)?;
                    return Ok(None);
                }
                None => {}
            }
            if d.datatype().map_err(malformed)? == Type::String {
                return d.str().map(Some).map_err(malformed);
            }
            skip(d)?;
            skip(d)?;
        }
    }
}

/// Skips one item. minicbor's own way keeps 16 bytes for every level of nesting, and a level takes
/// a byte or two; here nesting has a limit.
#[inline(never)]
fn skip(d: &mut Decoder<'_>) -> Result<(), ProtocolError> {
    // What is left to skip of each array and map that is open; `None`: until its end is marked.
    let mut open = [None; NESTING_MAX];
    let mut depth = 0;
    loop {
        let kind = d.datatype().map_err(malformed)?;
        let begun = match kind {
            Type::Array | Type::ArrayIndef => Some(d.array().map_err(malformed)?),
            Type::Map | Type::MapIndef => {
                let pairs = d.map().map_err(malformed)?;
                Some(pairs.map(|n| n.saturating_mul(2)))
            }
            Type::Tag => {
                d.tag().map_err(malformed)?;
                continue;
            }
            _ => {
                d.skip().map_err(malformed)?;
                None
            }
        };
        match begun {
            Some(items) => {
                let Some(place) = open.get_mut(depth) else {
                    return Err(ProtocolError::Cbor(format!(
                        "nested deeper than {NESTING_MAX} levels"
                    )));
                };
                *place = items;
                depth += 1;
            }
            None if kind == Type::Break => {
                let ends = depth
                    .checked_sub(1)
                    .filter(|at| open.get(*at) == Some(&None));
                depth = ends.ok_or_else(|| ProtocolError::Cbor("a break without sense".into()))?;
                count_item(&mut open, depth);
            }
            None => count_item(&mut open, depth),
        }
        // What has no more items ends, and is an item of what it lies in.
        while let Some(at) = depth.checked_sub(1)
            && open.get(at) == Some(&Some(0))
        {
            depth = at;
            count_item(&mut open, depth);
        }
        if depth == 0 {
            return Ok(());
        }
    }
}

/// One item ended in the innermost of what is open.
fn count_item(open: &mut [Option<u64>], depth: usize) {
    if let Some(Some(left)) = depth.checked_sub(1).and_then(|at| open.get_mut(at)) {
        *left = left.saturating_sub(1);
    }
}

/// A text of at most so many bytes.
#[inline(never)]
fn read_text<'a>(
    d: &mut Decoder<'a>,
    what: &'static str,
    max: usize,
) -> Result<&'a str, ProtocolError> {
    let text = d.str().map_err(malformed)?;
    within(what, text.len(), max)?;
    Ok(text)
}

fn within(what: &'static str, found: usize, max: usize) -> Result<(), ProtocolError> {
    if found > max {
        return Err(ProtocolError::Limit { what, found, max });
    }
    Ok(())
}

/// What a list of texts may have.
struct Texts {
    /// Its name, in an error.
    list: &'static str,
    entries_max: usize,
    /// The name of one entry, in an error.
    entry: &'static str,
    bytes_max: usize,
}

const VERSIONS: Texts = Texts {
    list: "entries of supportedProtocolVersions",
    entries_max: PROTOCOL_VERSIONS_MAX,
    entry: "bytes of a protocol version",
    bytes_max: PROTOCOL_VERSION_BYTES_MAX,
};

const SUBSCRIPTIONS: Texts = Texts {
    list: "storage ids in a remote-subscription-change",
    entries_max: SUBSCRIPTIONS_MAX,
    entry: "bytes of a storage id",
    bytes_max: STORAGE_ID_BYTES_MAX,
};

fn read_texts<'a>(d: &mut Decoder<'a>, of: &Texts) -> Result<Vec<&'a str>, ProtocolError> {
    let mut texts = Vec::new();
    each_text(d, |text| {
        within(of.list, texts.len() + 1, of.entries_max)?;
        within(of.entry, text.len(), of.bytes_max)?;
        texts.push(text);
        Ok(())
    })?;
    Ok(texts)
}

fn each_text<'a>(
    d: &mut Decoder<'a>,
    mut each: impl FnMut(&'a str) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    for text in d.array_iter::<&'a str>().map_err(malformed)? {
        each(text.map_err(malformed)?)?;
    }
    Ok(())
}

fn read_hashes(d: &mut Decoder<'_>) -> Result<Vec<ChangeHash>, ProtocolError> {
    let mut hashes = Vec::new();
    for bytes in d
        .array_iter::<&minicbor::bytes::ByteSlice>()
        .map_err(malformed)?
    {
        let bytes: &[u8] = bytes.map_err(malformed)?;
        let hash = <[u8; 32]>::try_from(bytes)
            .map_err(|_| ProtocolError::Cbor("a hash has 32 bytes".into()))?;
        within("hashes in refused", hashes.len() + 1, REFUSED_HASHES_MAX)?;
        hashes.push(ChangeHash(hash));
    }
    Ok(hashes)
}

/// `samod` may write the id as raw bytes, everybody else writes text.
fn read_document<'a>(d: &mut Decoder<'a>) -> Result<Cow<'a, str>, ProtocolError> {
    if d.datatype().map_err(malformed)? != Type::Bytes {
        let text = read_text(d, "documentId", DOCUMENT_ID_TEXT_BYTES_MAX)?;
        return Ok(Cow::Borrowed(text));
    }
    let id = DocumentId::new(d.bytes().map_err(malformed)?);
    Ok(Cow::Owned(
        id.map_err(|e| ProtocolError::Cbor(e.to_string()))?
            .to_string(),
    ))
}

/// Some encoders tag a `Uint8Array` as such, and stock peers read it all the same.
fn read_bytes<'a>(d: &mut Decoder<'a>) -> Result<&'a [u8], ProtocolError> {
    const UINT8_ARRAY: u64 = 64;
    if d.datatype().map_err(malformed)? == Type::Tag {
        let tag = d.tag().map_err(malformed)?;
        if tag.as_u64() != UINT8_ARRAY {
            return Err(ProtocolError::Cbor(format!(
                "bytes under the tag {}",
                tag.as_u64()
            )));
        }
    }
    d.bytes().map_err(malformed)
}

fn read_number(d: &mut Decoder<'_>) -> Result<f64, ProtocolError> {
    match d.datatype().map_err(malformed)? {
        Type::F16 | Type::F32 | Type::F64 => d.f64().map_err(malformed),
        _ => Ok(i128::from(d.int().map_err(malformed)?) as f64),
    }
}

fn read_metadata<'a>(d: &mut Decoder<'a>) -> Result<PeerMetadata<'a>, ProtocolError> {
    let mut metadata = PeerMetadata::default();
    let mut map = Entries::open(d)?;
    while let Some(key) = map.next(d)? {
        let kind = d.datatype().map_err(malformed)?;
        match (key, kind) {
            ("storageId", Type::String) => {
                let text = read_text(d, "storageId", STORAGE_ID_BYTES_MAX)?;
                metadata.storage_id = Some(Cow::Borrowed(text));
            }
            ("isEphemeral", Type::Bool) => metadata.is_ephemeral = d.bool().map_err(malformed)?,
            ("reconverge", Type::U8) => metadata.reconverge = d.u64().map_err(malformed)?,
            _ => skip(d)?,
        }
    }
    Ok(metadata)
}

/// A storage with more than [`REMOTE_HEADS_MAX`] heads is left out: its document goes on, and nobody
/// hears how far it got.
fn read_new_heads<'a>(d: &mut Decoder<'a>) -> Result<Vec<HeadsOfStorage<'a>>, ProtocolError> {
    let mut all = Vec::new();
    let mut storages = 0;
    let mut map = Entries::open(d)?;
    while let Some(storage) = map.next(d)? {
        storages += 1;
        within("storages in newHeads", storages, REMOTE_STORAGES_MAX)?;
        within("bytes of a storage id", storage.len(), STORAGE_ID_BYTES_MAX)?;
        let mut of_storage = HeadsOfStorage {
            storage,
            heads: Vec::new(),
            timestamp_ms: 0.0,
        };
        let mut heads = 0;
        let mut fields = Entries::open(d)?;
        while let Some(key) = fields.next(d)? {
            match key {
                "heads" => each_text(d, |head| {
                    within("bytes of a head", head.len(), HEAD_TEXT_BYTES_MAX)?;
                    heads += 1;
                    if heads <= REMOTE_HEADS_MAX {
                        of_storage.heads.push(Cow::Borrowed(head));
                    }
                    Ok(())
                })?,
                "timestamp" => of_storage.timestamp_ms = read_number(d)?,
                _ => skip(d)?,
            }
        }
        if heads <= REMOTE_HEADS_MAX {
            all.push(of_storage);
        }
    }
    Ok(all)
}

/// Writes one frame. Numbers that may exceed 2^32 are written as floats.
#[must_use]
pub fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut e = FrameEncoder::new(96);
    match message {
        Message::Join {
            sender, metadata, ..
        } => {
            e.begin(4, "join", Some(sender));
            e.metadata(metadata);
            e.text("supportedProtocolVersions");
            e.strings(&[PROTOCOL_VERSION]);
        }
        Message::Peer {
            sender,
            target,
            metadata,
        } => {
            e.begin(5, "peer", Some(sender));
            e.metadata(metadata);
            e.pair("selectedProtocolVersion", PROTOCOL_VERSION);
            e.pair("targetId", target);
        }
        Message::Error {
            sender,
            target,
            message,
        } => {
            let fields = 2 + u64::from(sender.is_some()) + u64::from(target.is_some());
            e.begin(fields, "error", *sender);
            e.pair("message", message);
            if let Some(target) = target {
                e.pair("targetId", target);
            }
        }
        Message::Leave { sender } => e.begin(2, "leave", Some(sender)),
        Message::Sync(sync) => {
            let mut frame = sync.encode_prefix(sync.data.len(), sync.data.len());
            frame.extend_from_slice(sync.data);
            return frame;
        }
        Message::DocUnavailable {
            sender,
            target,
            document,
        } => {
            e.begin(4, "doc-unavailable", Some(sender));
            e.pair("targetId", target);
            e.pair("documentId", document);
        }
        Message::Ephemeral(ephemeral) => {
            let mut frame = ephemeral.encode_prefix();
            frame.extend_from_slice(ephemeral.data);
            return frame;
        }
        Message::RemoteSubscriptionChange {
            sender,
            target,
            add,
            remove,
        } => {
            e.begin(5, "remote-subscription-change", Some(sender));
            e.pair("targetId", target);
            e.text("add");
            e.strings(add);
            e.text("remove");
            e.strings(remove);
        }
        Message::RemoteHeadsChanged(remote) => {
            e.begin(5, "remote-heads-changed", Some(remote.sender));
            e.pair("targetId", remote.target);
            e.pair("documentId", &remote.document);
            e.text("newHeads");
            e.map(remote.heads.len() as u64);
            for of_storage in &remote.heads {
                e.text(of_storage.storage);
                e.map(2);
                e.text("heads");
                e.strings(&of_storage.heads);
                e.text("timestamp");
                e.number(of_storage.timestamp_ms);
            }
        }
        Message::Refused(refused) => {
            e.begin(6, "refused", Some(refused.sender));
            e.pair("targetId", refused.target);
            e.pair("documentId", &refused.document);
            e.text("hashes");
            e.0.array(refused.hashes.len() as u64).expect(INFALLIBLE);
            for hash in &refused.hashes {
                e.bytes(&hash.0);
            }
            e.pair("reason", refused.reason);
        }
        Message::Unknown { kind } => e.begin(1, kind, None),
    }
    e.frame()
}

impl Ephemeral<'_> {
    /// Everything of the frame but the payload, which comes last; so one payload serves many peers.
    #[must_use]
    pub fn encode_prefix(&self) -> Vec<u8> {
        let names = self.sender.len() + self.target.len() + self.document.len();
        let mut e = FrameEncoder::new(112 + names + self.session.len() + self.data.len().min(1024));
        e.begin(7, "ephemeral", Some(self.sender));
        e.pair("targetId", self.target);
        e.pair("documentId", &self.document);
        e.text("count");
        e.number(self.count as f64);
        e.pair("sessionId", self.session);
        e.text("data");
        e.bytes_header(self.data.len() as u64);
        e.frame()
    }
}

impl SyncEnvelope<'_> {
    /// Everything of the frame but the sync message itself, which is its last `data_len` bytes; so
    /// one encoded sync message serves many peers. Room for `spare` more bytes is reserved.
    #[must_use]
    pub fn encode_prefix(&self, data_len: usize, spare: usize) -> Vec<u8> {
        let names = self.sender.len() + self.target.len() + self.document.len();
        let mut e = FrameEncoder::new(80 + names + spare);
        e.begin(
            5,
            if self.request { "request" } else { "sync" },
            Some(self.sender),
        );
        e.pair("targetId", self.target);
        e.pair("documentId", &self.document);
        e.text("data");
        e.bytes_header(data_len as u64);
        e.frame()
    }
}

/// CBOR into memory, which cannot fail.
struct FrameEncoder(Encoder<Vec<u8>>);

const INFALLIBLE: &str = "writing to memory does not fail";

impl FrameEncoder {
    fn new(capacity: usize) -> Self {
        Self(Encoder::new(Vec::with_capacity(capacity)))
    }

    fn frame(self) -> Vec<u8> {
        self.0.into_writer()
    }

    fn begin(&mut self, fields: u64, kind: &str, sender: Option<&str>) {
        self.map(fields);
        self.pair("type", kind);
        if let Some(sender) = sender {
            self.pair("senderId", sender);
        }
    }

    fn map(&mut self, len: u64) {
        self.0.map(len).expect(INFALLIBLE);
    }

    fn text(&mut self, text: &str) {
        self.0.str(text).expect(INFALLIBLE);
    }

    fn pair(&mut self, key: &str, value: &str) {
        self.text(key);
        self.text(value);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.bytes(bytes).expect(INFALLIBLE);
    }

    /// The head of a byte string (CBOR major type 2) without its content.
    fn bytes_header(&mut self, len: u64) {
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

    fn number(&mut self, number: f64) {
        if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
            self.0.u32(number as u32).expect(INFALLIBLE);
        } else {
            self.0.f64(number).expect(INFALLIBLE);
        }
    }

    fn strings(&mut self, strings: &[impl AsRef<str>]) {
        self.0.array(strings.len() as u64).expect(INFALLIBLE);
        for string in strings {
            self.text(string.as_ref());
        }
    }

    fn metadata(&mut self, metadata: &PeerMetadata<'_>) {
        self.text("peerMetadata");
        let fields =
            1 + u64::from(metadata.storage_id.is_some()) + u64::from(metadata.reconverge > 0);
        self.map(fields);
        if let Some(id) = &metadata.storage_id {
            self.pair("storageId", id);
        }
        self.text("isEphemeral");
        self.0.bool(metadata.is_ephemeral).expect(INFALLIBLE);
        if metadata.reconverge > 0 {
            self.text("reconverge");
            self.number(metadata.reconverge as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_way_there_and_back() {
        let metadata = PeerMetadata {
            storage_id: Some("3f0c".into()),
            is_ephemeral: true,
            reconverge: 1,
        };
        let document = Cow::Borrowed("4NMNnkMhL8jXrdJ9jamS58PAVdXu");
        for message in [
            Message::Join {
                sender: "a",
                metadata: metadata.clone(),
                speaks_v1: true,
            },
            Message::Peer {
                sender: "s",
                target: "a",
                metadata,
            },
            Message::Error {
                sender: Some("s"),
                target: Some("a"),
                message: "no",
            },
            Message::Error {
                sender: None,
                target: None,
                message: "no",
            },
            Message::Leave { sender: "a" },
            Message::Sync(SyncEnvelope {
                sender: "a",
                target: "s",
                document: document.clone(),
                data: &[7; 70_000],
                request: true,
            }),
            Message::DocUnavailable {
                sender: "s",
                target: "a",
                document: document.clone(),
            },
            Message::Ephemeral(Ephemeral {
                sender: "a",
                target: "s",
                document: document.clone(),
                count: 1 << 40,
                session: "x",
                data: &[1],
            }),
            Message::RemoteSubscriptionChange {
                sender: "a",
                target: "s",
                add: vec!["one", "two"],
                remove: vec![],
            },
            Message::Refused(Refused {
                sender: "s",
                target: "a",
                document: document.clone(),
                hashes: vec![ChangeHash([7; 32]), ChangeHash([8; 32])],
                reason: "a counter that is no number",
            }),
            Message::RemoteHeadsChanged(RemoteHeads {
                sender: "a",
                target: "s",
                document,
                heads: vec![HeadsOfStorage {
                    storage: "one",
                    heads: vec!["h".into()],
                    timestamp_ms: 1_795_000_000_000.0,
                }],
            }),
        ] {
            assert_eq!(decode(&encode(&message)).unwrap(), message);
        }
    }

    #[test]
    fn what_cbor_x_writes_is_read() {
        // {type: "join", senderId: "a", peerMetadata: undefined, supportedProtocolVersions: ["1"],
        //  other: {x: [1.5]}} under a map header of three bytes.
        let frame = b"\xb9\x00\x05\x64type\x64join\x68senderId\x61a\x6cpeerMetadata\xf7\
            \x78\x19supportedProtocolVersions\x81\x611\x65other\xa1\x61x\x81\xf9\x3e\x00";
        let expected = Message::Join {
            sender: "a",
            metadata: PeerMetadata::default(),
            speaks_v1: true,
        };
        assert_eq!(decode(frame).unwrap(), expected);
    }

    /// A frame with something nested in it under a key that nobody knows.
    fn nesting(open: &[u8], levels: usize, close: &[u8]) -> Vec<u8> {
        let start = b"\xa2\x61x".to_vec();
        let end = b"\x64type\x64what";
        [
            start,
            open.repeat(levels),
            b"\xf6".to_vec(),
            close.repeat(levels),
            end.to_vec(),
        ]
        .concat()
    }

    #[test]
    fn what_is_not_known_is_skipped_to_a_limited_depth() {
        let map = b"\xa1\x61a".as_slice();
        for (open, close) in [(&b"\x81"[..], &b""[..]), (b"\x9f", b"\xff"), (map, b"")] {
            assert!(decode(&nesting(open, NESTING_MAX, close)).is_ok());
            let error = decode(&nesting(open, NESTING_MAX + 1, close)).unwrap_err();
            assert!(error.to_string().contains("nested deeper"), "{error}");
        }
        let tags = nesting(b"\xc1", 1_000, b"");
        assert_eq!(decode(&tags), Ok(Message::Unknown { kind: "what" }));
        assert!(
            decode(b"\xa1\x61x\xff").is_err(),
            "a break that ends nothing"
        );
        let siblings = [
            &b"\xa2\x61x\x82\x82\x80\x01\x9f\x01\xff"[..],
            b"\x64type\x64what",
        ];
        assert!(decode(&siblings.concat()).is_ok());
    }

    /// Each field at its largest, and one beyond.
    #[test]
    fn every_field_has_a_largest_length() {
        let text = |n: usize| "x".repeat(n);
        let leave = |n| encode(&Message::Leave { sender: &text(n) });
        let kind = |n| {
            let mut e = FrameEncoder::new(0);
            e.begin(1, &text(n), None);
            e.frame()
        };
        let unavailable = |target: &str, document: &str| {
            encode(&Message::DocUnavailable {
                sender: "a",
                target,
                document: document.into(),
            })
        };
        let join = |storage: usize| {
            let metadata = PeerMetadata {
                storage_id: Some(text(storage).into()),
                ..PeerMetadata::default()
            };
            encode(&Message::Join {
                sender: "a",
                metadata,
                speaks_v1: true,
            })
        };
        let versions = |versions: &[String]| {
            let mut e = FrameEncoder::new(0);
            e.begin(3, "join", Some("a"));
            e.text("supportedProtocolVersions");
            e.strings(versions);
            e.frame()
        };
        let ephemeral = |session: usize, data: usize| {
            encode(&Message::Ephemeral(Ephemeral {
                sender: "a",
                target: "b",
                document: "d".into(),
                count: 1,
                session: &text(session),
                data: &vec![0; data],
            }))
        };
        let subscription = |n: usize, len: usize, removes: bool| {
            let ids = vec![text(len); n];
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let (add, remove) = if removes {
                (vec![], ids)
            } else {
                (ids, vec![])
            };
            encode(&Message::RemoteSubscriptionChange {
                sender: "a",
                target: "b",
                add,
                remove,
            })
        };
        let storages = |n: usize, len: usize, head: usize| {
            let names: Vec<_> = (0..n).map(|_| text(len)).collect();
            let of = |storage| HeadsOfStorage {
                storage,
                heads: vec![text(head).into()],
                timestamp_ms: 1.0,
            };
            encode(&Message::RemoteHeadsChanged(RemoteHeads {
                sender: "a",
                target: "b",
                document: "d".into(),
                heads: names.iter().map(|name| of(name)).collect(),
            }))
        };
        let refused = |hashes: usize, reason: usize| {
            encode(&Message::Refused(Refused {
                sender: "a",
                target: "b",
                document: "d".into(),
                hashes: vec![ChangeHash([1; 32]); hashes],
                reason: &text(reason),
            }))
        };
        let error = |n: usize| {
            encode(&Message::Error {
                sender: None,
                target: None,
                message: &text(n),
            })
        };
        type WithLength<'a> = &'a dyn Fn(usize) -> Vec<u8>;
        let fields: [(usize, WithLength<'_>); 19] = [
            (KIND_BYTES_MAX, &kind),
            (PEER_ID_BYTES_MAX, &leave),
            (PEER_ID_BYTES_MAX, &|n| unavailable(&text(n), "d")),
            (DOCUMENT_ID_TEXT_BYTES_MAX, &|n| unavailable("b", &text(n))),
            (STORAGE_ID_BYTES_MAX, &join),
            (PROTOCOL_VERSIONS_MAX, &|n| versions(&vec![text(1); n])),
            (PROTOCOL_VERSION_BYTES_MAX, &|n| versions(&[text(n)])),
            (SESSION_ID_BYTES_MAX, &|n| ephemeral(n, 1)),
            (EPHEMERAL_BYTES_MAX, &|n| ephemeral(1, n)),
            (SUBSCRIPTIONS_MAX, &|n| subscription(n, 1, false)),
            (SUBSCRIPTIONS_MAX, &|n| subscription(n, 1, true)),
            (STORAGE_ID_BYTES_MAX, &|n| subscription(1, n, false)),
            (STORAGE_ID_BYTES_MAX, &|n| subscription(1, n, true)),
            (REMOTE_STORAGES_MAX, &|n| storages(n, 1, 1)),
            (STORAGE_ID_BYTES_MAX, &|n| storages(1, n, 1)),
            (HEAD_TEXT_BYTES_MAX, &|n| storages(1, 1, n)),
            (REFUSED_HASHES_MAX, &|n| refused(n, 1)),
            (REASON_BYTES_MAX, &|n| refused(1, n)),
            (REASON_BYTES_MAX, &error),
        ];
        for (at, (max, frame)) in fields.iter().enumerate() {
            assert!(decode(&frame(*max)).is_ok(), "field {at} at {max}");
            let beyond = decode(&frame(max + 1)).unwrap_err();
            let limit = matches!(beyond, ProtocolError::Limit { max: at, found, .. }
                if at == *max && found == max + 1);
            assert!(limit, "field {at}: {beyond}");
        }
    }

    #[test]
    fn a_storage_with_too_many_heads_is_left_out_and_the_others_are_read() {
        let of = |storage, heads: usize| HeadsOfStorage {
            storage,
            heads: vec!["h".into(); heads],
            timestamp_ms: 1.0,
        };
        let told = |heads| {
            Message::RemoteHeadsChanged(RemoteHeads {
                sender: "a",
                target: "b",
                document: "d".into(),
                heads,
            })
        };
        let most = of("most", REMOTE_HEADS_MAX);
        let frame = encode(&told(vec![
            of("many", REMOTE_HEADS_MAX + 1),
            of("huge", 100_000),
            most.clone(),
        ]));
        assert_eq!(decode(&frame), Ok(told(vec![most])));
    }

    #[test]
    fn frames_that_are_no_message_are_errors() {
        for frame in [
            &b"\xf6"[..],
            b"",
            b"\xa0",
            b"\xa1\x64type\x64sync",
            b"\xa1\x64type\x01",
            b"\xa1\x64type\x65leave\x00",
            b"\xbf\x64type",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xa1\x63add\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(decode(frame).is_err(), "{frame:x?}");
        }
    }
}
