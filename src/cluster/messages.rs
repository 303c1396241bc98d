//! What the runtimes of the processes tell each other, and how it looks on a control link.
//!
//! A frame is a length (32 bits, little-endian) and that many bytes of JSON. There are a few of them in an epoch, so their
//! form costs nothing.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use tidemark_checkpoint::records::{Cut, Identity, Link, Position, Range};
use tidemark_dataflows::event::{Epoch, EpochMark, Micros};

use crate::exit::ExitStatus;

/// Longest frame in bytes: the cuts to replay, of all partitions, fit many times.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A sign of life.
    Beat,
    /// From process 0: the run begins.
    Start(Box<Start>),
    /// From process 0: an epoch is open, and was opened then. Epochs are opened in order.
    Open(Epoch, Micros),
    /// From process 0: nothing more goes into this epoch; what did is to be reported.
    Close(Epoch),
    /// From process 0: an epoch is cut, and the cut is durable.
    Mark(EpochMark),
    /// From process 0: a checkpoint is wanted as of the end of this epoch, the last one that was marked.
    Checkpoint(Epoch),
    /// From process 0: readers see this epoch in every table.
    Visible(Epoch),
    /// From process 0: nothing more is read.
    Drain,
    /// From process 0: nothing more is marked.
    End,
    /// To process 0: there is an event for this epoch, which is not open yet.
    Wanted(Epoch),
    /// To process 0: what this process has read of an epoch. It reads no more into it.
    Report(Report),
    /// To process 0: no event comes any more from the partitions of this process.
    Over,
    /// To process 0: reading waits for a publication.
    Hurry,
    /// To process 0: this process was asked to stop.
    Stop,
    /// To everyone: all workers of this process have ended and all that it wrote is durable. It may go away.
    Done,
    /// To everyone: this process cannot go on.
    Failed(Failed),
}

/// From where all processes go on together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The generation that process 0 has won.
    pub generation: u64,
    /// What stands in its claim, which nobody else could know: it proves that the checkpoint is the same. None where
    /// nothing is kept.
    pub nonce: Option<u64>,
    /// What the pipeline is.
    pub identity: Identity,
    /// The epoch of the restored manifest; 0 before the first.
    pub after: Epoch,
    /// The manifest that is restored; none where everything is read from the first epoch on.
    pub manifest: Option<Link>,
    /// How far each partition had been read by then.
    pub positions: Vec<Position>,
    /// The epochs to compute again.
    pub replay: Vec<Cut>,
    /// Epochs up to this one are published in one group.
    pub held: Epoch,
}

/// What one process has read of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The epoch.
    pub epoch: Epoch,
    /// The events, by partition.
    pub ranges: Vec<Range>,
    /// Offsets without events that were passed over.
    pub missing: u64,
    /// Whether no event comes any more from the partitions of this process.
    pub over: bool,
    /// Events and bytes read since the report before.
    pub read: (u64, u64),
}

/// Why a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The exit status.
    pub status: u8,
    /// One line that says which process it was, what happened and what to do.
    pub why: String,
}

impl Failed {
    /// The status as one of ours.
    pub fn status(&self) -> ExitStatus {
        let known = [
            ExitStatus::CheckFailed,
            ExitStatus::Usage,
            ExitStatus::Unavailable,
            ExitStatus::Refused,
            ExitStatus::Corrupt,
            ExitStatus::Bug,
        ];
        known.into_iter().find(|status| *status as u8 == self.status).unwrap_or(ExitStatus::Unavailable)
    }
}

/// Writes a frame.
///
/// # Errors
///
/// When the message is too long, or cannot be written.
pub fn write(to: &mut impl Write, message: &Message) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - 4).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a message is too long"))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&frame)
}

/// Reads a frame.
///
/// # Errors
///
/// When nothing more comes, or what comes is no message.
pub fn read(from: &mut impl Read) -> io::Result<Message> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!("a message of {length} bytes")));
    }
    // Grows with what really comes.
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&bytes).map_err(|error| invalid(format!("a message that is none: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let range = Range { partition: "a".to_owned(), index: 3, from: 4, to: 9, digest: None };
        let report = Report { epoch: 7, ranges: vec![range], missing: 2, over: true, read: (5, u64::MAX) };
        let failed = Failed { status: 5, why: "process 1: why".to_owned() };
        let mark = EpochMark { epoch: 1, opened: Micros(2), closed: Micros(3), missing: 4 };
        let messages =
            [Message::Beat, Message::Report(report), Message::Failed(failed), Message::Mark(mark), Message::Wanted(8)];
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| write(&mut bytes, message).unwrap());
        let mut from = &bytes[..];
        for message in &messages {
            assert_eq!(read(&mut from).unwrap(), *message);
        }
        assert_eq!(read(&mut from).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_is_refused_without_reading_on() {
        let mut endless = (FRAME_BYTES_MAX + 1).to_le_bytes().to_vec();
        endless.extend_from_slice(b"{}");
        assert_eq!(read(&mut &endless[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(&mut &b"\x02\0\0\0{}"[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(&mut &b"\xff\0\0\0{}"[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_status_of_another_version_is_no_good_end() {
        assert_eq!(Failed { status: 5, why: String::new() }.status(), ExitStatus::Corrupt);
        assert_eq!(Failed { status: 0, why: String::new() }.status(), ExitStatus::Unavailable);
    }
}
