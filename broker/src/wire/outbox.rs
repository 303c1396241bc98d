//! What is to be sent to a peer: frames are written into one buffer, and leave it in large writes.

use super::fields::{Fields, list};
use fe2o3_amqp_types::definitions::{Handle, ReceiverSettleMode, Role, SenderSettleMode};
use fe2o3_amqp_types::performatives::Attach;

/// Once so many bytes wait for the peer, no further deliveries are written.
pub(crate) const FULL: usize = 256 * 1024;

/// Frames that wait for the peer to take them.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// The largest frame that the peer takes.
    max_frame: usize,
    scratch: Vec<u8>,
}

/// Terminal state of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    Rejected { condition: &'static str, description: String },
}

/// First fields of a transfer to a peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) channel: u16,
    pub(crate) handle: u32,
    pub(crate) delivery_id: u32,
    pub(crate) tag: u32,
}

/// Where an attach of ours differs from the peer's that it answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attached {
    pub(crate) max_message_size: u64,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self { max_frame: 512, ..Self::default() }
    }

    /// Sets the largest frame that the peer takes.
    pub(crate) fn set_max_frame(&mut self, max_frame: u32) {
        self.max_frame = usize::try_from(max_frame.max(super::MIN_MAX_FRAME)).unwrap_or(usize::MAX);
    }

    /// What has not been sent yet.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() - self.sent >= FULL
    }

    /// The peer has taken `len` bytes.
    pub(crate) fn advance(&mut self, len: usize) {
        self.sent += len;
        if self.is_empty() {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent >= FULL {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Writes bytes that are no frame.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn frame(&mut self, kind: u8, channel: u16, code: u8, fill: impl FnOnce(&mut Fields<'_>)) {
        let at = self.begin_frame(kind, channel);
        list(&mut self.bytes, code, fill);
        self.end_frame(at);
    }

    fn begin_frame(&mut self, kind: u8, channel: u16) -> usize {
        let at = self.bytes.len();
        let [high, low] = channel.to_be_bytes();
        self.bytes.extend_from_slice(&[0, 0, 0, 0, 2, kind, high, low]);
        at
    }

    fn end_frame(&mut self, at: usize) {
        let size = u32::try_from(self.bytes.len() - at).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&size.to_be_bytes());
    }

    /// Only says that we are alive.
    pub(crate) fn heartbeat(&mut self) {
        let at = self.begin_frame(0, 0);
        self.end_frame(at);
    }

    pub(crate) fn sasl_mechanisms(&mut self) {
        let at = self.begin_frame(1, 0);
        // A list of one field, an array of two symbols.
        let symbols = b"\x02\xb3\x00\x00\x00\x09ANONYMOUS\x00\x00\x00\x05PLAIN";
        let size = u8::try_from(symbols.len()).unwrap_or(u8::MAX);
        self.bytes.extend_from_slice(&[0x00, 0x53, 0x40, 0xc0, size + 3, 0x01, 0xe0, size]);
        self.bytes.extend_from_slice(symbols);
        self.end_frame(at);
    }

    pub(crate) fn sasl_outcome(&mut self, code: u8) {
        self.frame(1, 0, 0x44, |outcome| {
            outcome.ubyte(code);
            outcome.null();
        });
    }

    pub(crate) fn open(&mut self, container: &str, channel_max: u16) {
        self.frame(0, 0, 0x10, |open| {
            open.string(container);
            open.null();
            open.uint(super::MAX_FRAME);
            open.ushort(channel_max);
            for _ in 0..5 {
                open.null();
            }
            open.product();
        });
    }

    pub(crate) fn begin(&mut self, channel: u16, incoming_window: u32, handle_max: u32) {
        self.frame(0, channel, 0x11, |begin| {
            begin.ushort(channel);
            begin.uint(0);
            begin.uint(incoming_window);
            begin.uint(u32::MAX / 2);
            begin.uint(handle_max);
            begin.null();
            begin.null();
            begin.product();
        });
    }

    /// Answers an attach. What goes to the peer is sent settled, and what comes from it is settled first.
    pub(crate) fn attach(&mut self, channel: u16, theirs: &Attach, ours: Attached) {
        self.frame(0, channel, 0x12, |attach| {
            let we_send = theirs.role == Role::Receiver;
            let Handle(handle) = theirs.handle;
            attach.string(&theirs.name);
            attach.uint(handle);
            attach.boolean(!we_send);
            let mode = if we_send { SenderSettleMode::Settled } else { theirs.snd_settle_mode.clone() };
            attach.encoded(&mode);
            attach.encoded(&ReceiverSettleMode::First);
            match &theirs.source {
                Some(source) => attach.encoded(source),
                None => attach.null(),
            }
            match &theirs.target {
                Some(target) => attach.encoded(target),
                None => attach.null(),
            }
            attach.null();
            attach.boolean(false);
            if we_send {
                attach.uint(0)
            } else {
                attach.null()
            }
            attach.ulong(ours.max_message_size);
            attach.null();
            attach.null();
            attach.product();
        });
    }

    /// Writes a flow with the session's state and, for a link, its handle, delivery count and credit.
    pub(crate) fn flow(&mut self, channel: u16, session: [u32; 4], link: Option<[u32; 3]>) {
        self.frame(0, channel, 0x13, |flow| {
            session.into_iter().for_each(|field| flow.uint(field));
            match link {
                Some(link) => link.into_iter().for_each(|field| flow.uint(field)),
                None => (0..3).for_each(|_| flow.null()),
            }
            flow.null();
            flow.boolean(false);
            flow.boolean(false);
            flow.null();
        });
    }

    pub(crate) fn disposition(&mut self, channel: u16, delivery_id: u32, outcome: &Outcome) {
        self.frame(0, channel, 0x15, |disposition| {
            disposition.boolean(true);
            disposition.uint(delivery_id);
            disposition.uint(delivery_id);
            disposition.boolean(true);
            match outcome {
                Outcome::Accepted => disposition.list(0x24, |_| {}),
                Outcome::Rejected { condition, description } => {
                    disposition.list(0x25, |rejected| rejected.error(condition, description));
                }
            }
            disposition.boolean(false);
        });
    }

    pub(crate) fn detach(&mut self, channel: u16, handle: u32, closed: bool, error: Option<(&str, &str)>) {
        self.frame(0, channel, 0x16, |detach| {
            detach.uint(handle);
            detach.boolean(closed);
            match error {
                Some((condition, description)) => detach.error(condition, description),
                None => detach.null(),
            }
        });
    }

    pub(crate) fn end(&mut self, channel: u16, error: Option<(&str, &str)>) {
        self.last_of(channel, 0x17, error);
    }

    pub(crate) fn close(&mut self, error: Option<(&str, &str)>) {
        self.last_of(0, 0x18, error);
    }

    fn last_of(&mut self, channel: u16, code: u8, error: Option<(&str, &str)>) {
        self.frame(0, channel, code, |last| match error {
            Some((condition, description)) => last.error(condition, description),
            None => last.null(),
        });
    }

    /// Writes a settled delivery whose message `encode` appends, in as many frames as it takes. Answers how many.
    pub(crate) fn transfer(&mut self, transfer: Transfer, encode: impl FnOnce(&mut Vec<u8>)) -> u32 {
        let at = self.begin_frame(0, transfer.channel);
        self.transfer_head(transfer, false);
        let head = self.bytes.len();
        encode(&mut self.bytes);
        if self.bytes.len() - at <= self.max_frame {
            self.end_frame(at);
            return 1;
        }
        let mut message = std::mem::take(&mut self.scratch);
        message.clear();
        message.extend_from_slice(&self.bytes[head..]);
        self.bytes.truncate(at);
        let room = self.max_frame - (head - at);
        let mut frames = 0;
        let mut parts = message.chunks(room).peekable();
        while let Some(part) = parts.next() {
            let at = self.begin_frame(0, transfer.channel);
            self.transfer_head(transfer, parts.peek().is_some());
            self.bytes.extend_from_slice(part);
            self.end_frame(at);
            frames += 1;
        }
        self.scratch = message;
        frames
    }

    /// All eleven fields, with lengths that do not depend on their values.
    fn transfer_head(&mut self, transfer: Transfer, more: bool) {
        let mut head = *b"\x00\x53\x14\xc0\x19\x0b\x70....\x70....\xa0\x04....\x43\x41\x42\x40\x40\x42\x42\x41";
        head[7..11].copy_from_slice(&transfer.handle.to_be_bytes());
        head[12..16].copy_from_slice(&transfer.delivery_id.to_be_bytes());
        head[18..22].copy_from_slice(&transfer.tag.to_be_bytes());
        if more {
            head[24] = 0x41;
        }
        self.bytes.extend_from_slice(&head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Body, read_frame};

    fn transfers(outbox: &Outbox) -> Vec<(fe2o3_amqp_types::performatives::Transfer, Vec<u8>)> {
        let (mut bytes, mut found) = (outbox.pending(), Vec::new());
        while !bytes.is_empty() {
            let size = u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
            let Body::Transfer(transfer, payload) = read_frame(&bytes[..size]).unwrap().body else {
                panic!("no transfer")
            };
            found.push((*transfer, payload.to_vec()));
            bytes = &bytes[size..];
        }
        found
    }

    #[test]
    fn a_delivery_is_split_where_the_peer_takes_no_more_and_reads_back_whole() {
        for len in [1usize, 470, 471, 480, 2000, 100_000] {
            let mut outbox = Outbox::new();
            outbox.set_max_frame(512);
            let message: Vec<u8> = (0..len).map(|i| i.to_le_bytes()[0]).collect();
            let head = Transfer { channel: 3, handle: 7, delivery_id: 11, tag: 13 };
            let frames = outbox.transfer(head, |bytes| bytes.extend_from_slice(&message));
            let read = transfers(&outbox);
            assert_eq!(read.len(), frames as usize);
            assert_eq!(read.iter().flat_map(|(_, part)| part.clone()).collect::<Vec<_>>(), message);
            for (i, (transfer, part)) in read.iter().enumerate() {
                assert!(part.len() + 38 <= 512);
                assert_eq!((transfer.handle.0, transfer.delivery_id, transfer.settled), (7, Some(11), Some(true)));
                assert_eq!(transfer.delivery_tag.as_deref().map(Vec::as_slice), Some(&13u32.to_be_bytes()[..]));
                assert_eq!((transfer.more, transfer.batchable), (i + 1 < read.len(), true));
            }
        }
    }

    #[test]
    fn what_was_sent_makes_room() {
        let mut outbox = Outbox::new();
        outbox.raw(&vec![1; FULL]);
        assert!(outbox.is_full());
        outbox.advance(1);
        assert!(!outbox.is_full());
        outbox.raw(&[2]);
        outbox.advance(FULL - 1);
        assert_eq!(outbox.pending(), [2]);
        outbox.advance(1);
        assert!(outbox.is_empty());
    }
}
