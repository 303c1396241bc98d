//! The first words on a new connection: both sides prove that they know the secret, without telling it.
//!
//! ```text
//! connecting process                              listening process
//! hello: version, purpose, numbers, nonce   ──►
//!                                           ◄──   hello: the same, with a nonce of its own
//! proof over both hellos, as "connects"     ──►
//!                                           ◄──   a verdict, and its proof over both hellos, as "listens"
//! fingerprint (control links)              ◄─►    fingerprint
//! ```
//!
//! A proof is a keyed BLAKE3 hash of the role and of both hellos, so it fits one connection, one direction and one pair of
//! processes only. All messages but the fingerprint have a fixed size, and everything has to be said within
//! [`PATIENCE`]. What follows on the connection is not protected: it belongs on a private network.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::fingerprint::Fingerprint;

/// How long a handshake may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

const MAGIC: &[u8; 8] = b"TIDEMARK";
const VERSION: u16 = 1;
const HELLO_BYTES: usize = 8 + 2 + 1 + 3 * 2 + 8 + 32;
const FINGERPRINT_BYTES_MAX: u32 = 64 << 10;
const CONTEXT: &str = "tidemark 2026-11 proof between the processes of one pipeline";

/// What a connection is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The dataflow.
    Data = 1,
    /// Messages between the runtimes, and signs of life.
    Control = 2,
}

/// What follows from the secret.
#[derive(Clone)]
pub struct Key(zeroize::Zeroizing<[u8; 32]>);

impl Key {
    /// The key of a secret.
    pub fn of(secret: &[u8]) -> Key {
        Key(zeroize::Zeroizing::new(blake3::derive_key(CONTEXT, secret)))
    }
}

/// What this process says of itself.
#[derive(Clone)]
pub struct Introduction<'a> {
    /// Its number.
    pub process: usize,
    /// How many there are.
    pub processes: usize,
    /// Drawn at its start, which tells it from the one that had its place before.
    pub incarnation: u64,
    /// What it proves to know.
    pub key: &'a Key,
    /// What must be the same on the other side.
    pub fingerprint: &'a Fingerprint,
}

/// Who is on the other side.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub process: usize,
    /// Which of its starts.
    pub incarnation: u64,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// Why nothing came of a connection.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It broke, or was too slow.
    #[error("the handshake failed: {0}")]
    Broken(#[from] io::Error),
    /// Whoever is there does not speak our language.
    #[error("it is no process of this program and version")]
    Stranger,
    /// It means another process.
    #[error("it takes this process for number {0}")]
    Misdirected(usize),
    /// It does not know the secret.
    #[error("its secret is another one")]
    Secret,
    /// It would compute something else.
    #[error("its settings do not fit: {}", .0.join("; "))]
    Settings(Vec<String>),
}

/// A hello, as its bytes and what they say.
struct Hello {
    bytes: [u8; HELLO_BYTES],
    peer: Peer,
    to: usize,
}

impl Hello {
    fn new(me: &Introduction<'_>, to: usize, purpose: Purpose) -> io::Result<Hello> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
        let number = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
        let mut bytes = Vec::with_capacity(HELLO_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(purpose as u8);
        [me.process, to, me.processes].iter().for_each(|n| bytes.extend_from_slice(&number(*n)));
        bytes.extend_from_slice(&me.incarnation.to_le_bytes());
        bytes.extend_from_slice(&nonce);
        let bytes = bytes.try_into().map_err(|_| io::Error::other("a hello of another size"))?;
        Ok(Hello { bytes, peer: Peer { process: me.process, incarnation: me.incarnation, purpose }, to })
    }

    /// The number of processes is looked at later: the fingerprint has it as well, and names it.
    fn parse(bytes: [u8; HELLO_BYTES]) -> Result<Hello, Refusal> {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let purpose = match bytes[10] {
            1 => Purpose::Data,
            2 => Purpose::Control,
            _ => return Err(Refusal::Stranger),
        };
        if &bytes[..8] != MAGIC || number(8) != VERSION {
            return Err(Refusal::Stranger);
        }
        let mut incarnation = [0; 8];
        incarnation.copy_from_slice(&bytes[17..25]);
        let incarnation = u64::from_le_bytes(incarnation);
        let peer = Peer { process: usize::from(number(11)), incarnation, purpose };
        Ok(Hello { peer, to: usize::from(number(13)), bytes })
    }
}

/// The proof of the side that has this role.
fn proof(key: &Key, role: &[u8], connecting: &Hello, listening: &Hello) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(role).update(&connecting.bytes).update(&listening.bytes);
    hasher.finalize()
}

const CONNECTS: &[u8] = b"connects";
const LISTENS: &[u8] = b"listens.";

/// What the listening side says of a proof, for people on the other side; nothing rests on it.
const ADMITTED: u8 = 0;
const WRONG_SECRET: u8 = 1;
const MISDIRECTED: u8 = 2;

/// A stream on which everything must have come by a deadline.
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "too slow")),
            left => Ok(Some(left)),
        }
    }

    /// One read at a time, so that a peer that sends a byte now and then comes to the deadline as well.
    fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut have = 0;
        while have < bytes.len() {
            self.stream.set_read_timeout(self.left()?)?;
            match self.stream.read(&mut bytes[have..]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed it")),
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write_all(bytes)
    }
}

/// Introduces this process on a connection that it made to process `to`.
///
/// # Errors
///
/// Why the other side is not the one that is looked for, or did not take us.
pub fn connect(stream: &TcpStream, me: &Introduction<'_>, to: usize, purpose: Purpose) -> Result<Peer, Refusal> {
    let mut timed = begin(stream)?;
    let ours = Hello::new(me, to, purpose)?;
    timed.write(&ours.bytes)?;
    let theirs = Hello::parse(timed.read()?)?;
    if theirs.peer.process != to || theirs.to != me.process || theirs.peer.purpose != purpose {
        return Err(Refusal::Stranger);
    }
    timed.write(proof(me.key, CONNECTS, &ours, &theirs).as_bytes())?;
    match timed.read::<1>()? {
        [ADMITTED] => {}
        [WRONG_SECRET] => return Err(Refusal::Secret),
        [MISDIRECTED] => return Err(Refusal::Misdirected(to)),
        _ => return Err(Refusal::Stranger),
    }
    if proof(me.key, LISTENS, &ours, &theirs) != blake3::Hash::from(timed.read::<32>()?) {
        return Err(Refusal::Secret);
    }
    compare(&mut timed, me, purpose)?;
    end(stream)?;
    Ok(theirs.peer)
}

/// Finds out who is on a connection that was accepted.
///
/// # Errors
///
/// Why it is refused.
pub fn accept(stream: &TcpStream, me: &Introduction<'_>) -> Result<Peer, Refusal> {
    let mut timed = begin(stream)?;
    let theirs = Hello::parse(timed.read()?)?;
    let ours = Hello::new(me, theirs.peer.process, theirs.peer.purpose)?;
    timed.write(&ours.bytes)?;
    let shown = blake3::Hash::from(timed.read::<32>()?);
    // Equality of hashes takes the same time wherever they differ.
    if proof(me.key, CONNECTS, &theirs, &ours) != shown {
        timed.write(&[WRONG_SECRET])?;
        return Err(Refusal::Secret);
    }
    if theirs.to != me.process || theirs.peer.process <= me.process {
        timed.write(&[MISDIRECTED])?;
        return Err(Refusal::Misdirected(theirs.to));
    }
    timed.write(&[ADMITTED])?;
    timed.write(proof(me.key, LISTENS, &theirs, &ours).as_bytes())?;
    compare(&mut timed, me, theirs.peer.purpose)?;
    end(stream)?;
    Ok(theirs.peer)
}

fn begin(stream: &TcpStream) -> io::Result<Timed<'_>> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    Ok(Timed { stream, deadline: Instant::now() + PATIENCE })
}

fn end(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)
}

/// Both tell what they go by, and both look at it: whoever finds a difference knows what it is.
fn compare(timed: &mut Timed<'_>, me: &Introduction<'_>, purpose: Purpose) -> Result<(), Refusal> {
    if purpose == Purpose::Data {
        return Ok(());
    }
    let ours = serde_json::to_vec(me.fingerprint).map_err(io::Error::other)?;
    let length = u32::try_from(ours.len()).unwrap_or(u32::MAX);
    timed.write(&[&length.to_le_bytes()[..], &ours].concat())?;
    let length = u32::from_le_bytes(timed.read()?);
    if length > FINGERPRINT_BYTES_MAX {
        return Err(Refusal::Stranger);
    }
    let mut theirs = vec![0; length as usize];
    timed.read_into(&mut theirs)?;
    let theirs: Fingerprint = serde_json::from_slice(&theirs).map_err(|_| Refusal::Stranger)?;
    let differences = me.fingerprint.differences(&theirs);
    if differences.is_empty() { Ok(()) } else { Err(Refusal::Settings(differences)) }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
