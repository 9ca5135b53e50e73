//! A [`Message`] to bytes.

use super::cbor_writer::FrameEncoder;
use super::handshake::PROTOCOL_VERSION;
use super::message::Message;

/// Writes one frame. Numbers that may exceed 2^32 are written as floats.
#[must_use]
pub fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut e = FrameEncoder::new(96);
    match message {
        Message::Join {
            sender, metadata, ..
        } => {
            e.begin(4, "join", Some(sender));
            metadata.write(&mut e);
            e.text("supportedProtocolVersions");
            e.strings(&[PROTOCOL_VERSION]);
        }
        Message::Peer {
            sender,
            target,
            metadata,
        } => {
            e.begin(5, "peer", Some(sender));
            metadata.write(&mut e);
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
        Message::RemoteHeadsChanged(remote) => remote.write(&mut e),
        Message::Refused(refused) => refused.write(&mut e),
        Message::Unknown { kind } => e.begin(1, kind, None),
    }
    e.frame()
}
