//! Bytes to a [`Message`].

use std::borrow::Cow;

use automerge::ChangeHash;
use minicbor::Decoder;
use minicbor::data::Type;

use super::cbor_reader::{
    Entries, is_absent, malformed, read_bytes, read_number, read_text, read_texts, skip, within,
};
use super::ephemeral::Ephemeral;
use super::error::ProtocolError;
use super::handshake::{PROTOCOL_VERSION, PeerMetadata, VERSIONS};
use super::limits::{
    CODE_BYTES_MAX, DOCUMENT_ID_TEXT_BYTES_MAX, EPHEMERAL_BYTES_MAX, KIND_BYTES_MAX,
    REASON_BYTES_MAX, SESSION_ID_BYTES_MAX,
};
use super::message::Message;
use super::refused::{Refused, read_hashes};
use super::remote_heads::{HeadsOfStorage, RemoteHeads, SUBSCRIPTIONS, read_new_heads};
use super::sync_envelope::SyncEnvelope;
use crate::id::{DocumentId, PEER_ID_BYTES_MAX};

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
    code: Option<&'a str>,
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
            "peerMetadata" => self.metadata = PeerMetadata::read(d)?,
            "supportedProtocolVersions" => {
                let versions = read_texts(d, &VERSIONS)?;
                self.versions = Some(versions.contains(&PROTOCOL_VERSION));
            }
            "add" => self.add = read_texts(d, &SUBSCRIPTIONS)?,
            "remove" => self.remove = read_texts(d, &SUBSCRIPTIONS)?,
            "newHeads" => self.new_heads = Some(read_new_heads(d)?),
            "hashes" => self.hashes = read_hashes(d)?,
            "reason" => self.reason = Some(read_text(d, "reason", REASON_BYTES_MAX)?),
            // Applications may have one of another type in messages of their own.
            "code" if d.datatype().map_err(malformed)? == Type::String => {
                self.code = Some(read_text(d, "code", CODE_BYTES_MAX)?);
            }
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
                code: self.code.unwrap_or_default(),
                reason: self.reason.unwrap_or_default(),
            }),
            _ => Message::Unknown { kind },
        })
    }
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

#[cfg(test)]
mod tests {
    use super::super::cbor_writer::FrameEncoder;
    use super::super::encode::encode;
    use super::super::limits::{
        HEAD_TEXT_BYTES_MAX, NESTING_MAX, PROTOCOL_VERSION_BYTES_MAX, PROTOCOL_VERSIONS_MAX,
        REFUSED_HASHES_MAX, REMOTE_HEADS_MAX, REMOTE_STORAGES_MAX, STORAGE_ID_BYTES_MAX,
        SUBSCRIPTIONS_MAX,
    };
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
                code: "limit",
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
                code: "limit",
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
