//! What the runtimes of the processes tell each other, and how it looks on a control link.
//!
//! A frame is a length (32 bits, little-endian) and that many bytes of JSON. There are a few of them in an epoch, so their
//! form costs nothing.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use tidemark_checkpoint::records::{Cut, Identity, Joined, Link, Position, Range};
use tidemark_dataflows::event::{Epoch, EpochMark, Micros};
use tidemark_dataflows::watermark::Behind;

use crate::exit::ExitStatus;

/// Longest frame in bytes: how far a hundred thousand files have been read fits several times.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// One message. Those between the leader, process 0, and a reader are the same within a process and between two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A sign of life.
    Beat,
    /// From the leader, before the run begins, in their order: an epoch to compute again.
    Replay(Box<Cut>),
    /// From the leader: the run begins.
    Start(Box<Start>),
    /// From the leader: how do the partitions stand, for an epoch that is opened then?
    Look(Epoch, Micros),
    /// From the leader: an epoch is open, since when, and what to read into it. Epochs are opened in order.
    Open(Epoch, Micros, Quota),
    /// From the leader: nothing more goes into this epoch; what did is to be reported.
    Close(Epoch),
    /// From the leader: a partition joins.
    Join(Joined),
    /// From the leader: the least enqueued time of what other processes hold.
    Align(Option<Micros>),
    /// From the leader to its own reader: nothing comes any more from the others.
    OthersOver,
    /// From the leader: an epoch is cut, and the cut is durable. These partitions were behind.
    Mark(EpochMark, Vec<Behind>),
    /// From the leader: a checkpoint is wanted as of the end of this epoch, the last one that was marked.
    Checkpoint(Epoch),
    /// From the leader: readers of the tables see this epoch in every one.
    Visible(Epoch),
    /// From the leader: nothing more is read.
    Drain,
    /// From the leader: nothing more is marked.
    End,
    /// To the leader: there is an event for this epoch, which is not open yet.
    Wanted(Epoch),
    /// To the leader: how the partitions of this process stand.
    Standings(Vec<Standing>),
    /// To the leader: this process holds as much of an epoch as it may.
    Full(Epoch),
    /// To the leader: what this process has read of an epoch. It reads no more into it.
    Report(Report),
    /// To the leader: no event comes any more from the partitions of this process.
    Over,
    /// To the leader: the least enqueued time of what this process holds.
    InHand(Option<Micros>),
    /// To the leader from its own reader: a partition was found, and reading it begins at that offset.
    Discovered(String, u64),
    /// To the leader: reading waits for a publication.
    Hurry,
    /// To the leader: this process was asked to stop.
    Stop,
    /// To everyone: all workers of this process have ended and all that it wrote is durable. It may go away.
    Done,
    /// To everyone: this process cannot go on.
    Failed(Failed),
}

/// What to read into an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quota {
    /// Whatever comes until it is closed.
    Whatever,
    /// So many events of each of these files, or all that it has where it has fewer.
    Files(Vec<(u32, u64)>),
    /// All files have ended: what is left in the inbox, so many events at most.
    Rest(u64),
}

/// How a partition stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its number.
    pub index: u32,
    /// Whether more is there to be read; if not, it is caught up.
    pub behind: bool,
    /// Its head time, where it is a file that has one.
    pub head: Option<Micros>,
    /// An epoch that is opened then or later may see another head time.
    pub until: Micros,
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
    /// The epochs to compute again. Each has gone ahead in a message of its own, as there may be many of many partitions.
    #[serde(skip)]
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
    /// How the partitions of this process stand after it.
    pub standings: Vec<Standing>,
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
    use tidemark_dataflows::event::PartitionId;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let range = Range { partition: "a".to_owned(), index: 3, from: 4, to: 9, digest: None };
        let standing = Standing { index: 3, behind: true, head: Some(Micros(4)), until: Micros(i64::MAX) };
        let report =
            Report { epoch: 7, ranges: vec![range], missing: 2, standings: vec![standing], read: (5, u64::MAX) };
        let failed = Failed { status: 5, why: "process 1: why".to_owned() };
        let mark = EpochMark { epoch: 1, opened: Micros(2), closed: Micros(3), missing: 4, waits: true };
        let behind = vec![Behind { partition: PartitionId(3), head: None }];
        let messages = [
            Message::Beat,
            Message::Open(7, Micros(1), Quota::Files(vec![(3, 5)])),
            Message::Report(report),
            Message::Failed(failed),
            Message::Mark(mark, behind),
            Message::Wanted(8),
        ];
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
