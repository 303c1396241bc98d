//! Moves bytes between a socket and its connection.

use crate::connection::{Connection, Ended};
use crate::hub::Hub;
use bytes::BytesMut;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes that are read at once.
const READ: usize = 64 * 1024;
/// Bytes that may wait for a peer that sends and sends but never reads, before it is no longer listened to. Far more
/// than deliveries make wait: some clients do not read while they write, and both sides would wait for each other.
const STUCK: usize = 4 * 1024 * 1024;

/// Serves a client until it is gone. Gives back the socket, and says how it ended.
pub(crate) async fn serve<S>(hub: Arc<Hub>, stream: S) -> (S, Ended)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ended = exchange(hub, &mut reader, &mut writer).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "a connection is gone");
        Ended::Closed
    });
    (reader.unsplit(writer), ended)
}

async fn exchange<R, W>(hub: Arc<Hub>, reader: &mut R, writer: &mut W) -> io::Result<Ended>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut connection = Connection::new(hub);
    let peer = connection.peer();
    let mut input = BytesMut::new();
    let mut unflushed = false;
    loop {
        let due = match connection.step(Instant::now()) {
            Ok(due) => due,
            Err(ended) => return Ok(ended),
        };
        let closed = connection.is_closed();
        let outbox = connection.outbox();
        if closed && outbox.is_empty() && !unflushed {
            writer.shutdown().await?;
            return Ok(Ended::Closed);
        }
        input.reserve(READ);
        let listens = !closed && outbox.pending().len() < STUCK;
        tokio::select! {
            read = reader.read_buf(&mut input), if listens => {
                if read? == 0 {
                    return Ok(Ended::Closed);
                }
                connection.take(&mut input);
            }
            pushed = push(writer, outbox.pending()), if unflushed || !outbox.is_empty() => {
                let pushed = pushed?;
                unflushed = pushed > 0;
                outbox.advance(pushed);
            }
            () = peer.woken() => {}
            () = until(due), if due.is_some() => {}
        }
    }
}

/// Writes some of what waits, or flushes if nothing does. Answers how many bytes were written.
async fn push<W: AsyncWrite + Unpin>(writer: &mut W, pending: &[u8]) -> io::Result<usize> {
    if pending.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    match writer.write(pending).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
