//! The first words on a new connection: both sides prove that they know the secret, without telling it, and agree on keys
//! that nobody else learns, not even somebody who comes to know the secret later.
//!
//! ```text
//! connecting process                              listening process
//! version, and message 1: hello             ──►
//!                                           ◄──   a verdict, and message 2: hello
//! message 3: fingerprint (control links)    ──►
//!                                           ◄──   message 4: the same
//! ```
//!
//! The messages are those of the [Noise protocol] `NNpsk0`, with a key that is derived from the secret: whoever does not
//! know it can neither make nor read one. The first could be said again by somebody who overheard it, the third cannot. A
//! hello tells who speaks, to whom and what for, and whether it would have the connection encrypted: if one side would, as
//! its end is not on this machine, what follows goes over an encrypted [`Channel`]. Everything has to be said within
//! [`PATIENCE`].
//!
//! [Noise protocol]: https://noiseprotocol.org/noise.html

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use snow::{Builder, HandshakeState, StatelessTransportState};

use super::channel::{Channel, PART_BYTES_MAX, altered};
use super::fingerprint::Fingerprint;

/// How long a handshake may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

const MAGIC: [u8; 8] = *b"TIDEMARK";
const VERSION: u16 = 2;
const PREAMBLE_BYTES: usize = 8 + 2;
const NOISE: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
const HELLO_BYTES: usize = 1 + 3 * 2 + 8 + 1;
/// A public key, a hello and its tag.
const GREETING_BYTES: usize = 32 + HELLO_BYTES + TAG_BYTES;
const TAG_BYTES: usize = 16;
const CONTEXT: &str = "tidemark 2026-11 key between the processes of one pipeline";

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

/// What a side says of itself, and of the connection.
#[derive(Copy, Clone)]
struct Hello {
    peer: Peer,
    to: usize,
    processes: usize,
    /// Whether its end is not on this machine.
    seal: bool,
}

impl Hello {
    fn new(me: &Introduction<'_>, to: usize, purpose: Purpose, seal: bool) -> Hello {
        let peer = Peer { process: me.process, incarnation: me.incarnation, purpose };
        Hello { peer, to, processes: me.processes, seal }
    }

    fn to_bytes(self) -> Vec<u8> {
        let number = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
        let numbers = [self.peer.process, self.to, self.processes].map(number).concat();
        let incarnation = self.peer.incarnation.to_le_bytes();
        [&[self.peer.purpose as u8][..], &numbers, &incarnation, &[u8::from(self.seal)]].concat()
    }

    /// The number of processes is looked at later: the fingerprint has it as well, and names it.
    fn parse(bytes: &[u8]) -> Result<Hello, Refusal> {
        let bytes: [u8; HELLO_BYTES] = bytes.try_into().map_err(|_| Refusal::Stranger)?;
        let [purpose, rest @ ..] = bytes;
        let number = |at: usize| usize::from(u16::from_le_bytes([rest[at], rest[at + 1]]));
        let purpose = match purpose {
            1 => Purpose::Data,
            2 => Purpose::Control,
            _ => return Err(Refusal::Stranger),
        };
        let mut incarnation = [0; 8];
        incarnation.copy_from_slice(&rest[6..14]);
        let incarnation = u64::from_le_bytes(incarnation);
        let peer = Peer { process: number(0), incarnation, purpose };
        Ok(Hello { peer, to: number(2), processes: number(4), seal: rest[14] != 0 })
    }
}

fn preamble() -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// A handshake of the Noise protocol in which both sides know the key.
fn noise(key: &Key, connects: bool) -> io::Result<HandshakeState> {
    let preamble = preamble();
    let build = || {
        let builder = Builder::new(NOISE.parse()?).psk(0, &key.0)?.prologue(&preamble)?;
        if connects { builder.build_initiator() } else { builder.build_responder() }
    };
    build().map_err(|error: snow::Error| io::Error::other(format!("no keys can be made: {error}")))
}

/// Whether the other end of a connection may be on another machine. A container that is reached through this one has one end
/// here.
fn leaves_this_machine(stream: &TcpStream) -> io::Result<bool> {
    let is_here = match stream.peer_addr()?.ip() {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        }
    };
    Ok(!is_here)
}

/// What the listening side says of message 1, for people on the other side; nothing rests on it.
const ADMITTED: u8 = 0;
const WRONG_SECRET: u8 = 1;
const MISDIRECTED: u8 = 2;
const OTHER_VERSION: u8 = 3;

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
pub fn connect(
    stream: TcpStream,
    me: &Introduction<'_>,
    to: usize,
    purpose: Purpose,
) -> Result<(Peer, Channel), Refusal> {
    let seal = leaves_this_machine(&stream)?;
    connect_with(stream, me, to, purpose, seal)
}

fn connect_with(
    stream: TcpStream,
    me: &Introduction<'_>,
    to: usize,
    purpose: Purpose,
    seal: bool,
) -> Result<(Peer, Channel), Refusal> {
    let mut timed = begin(&stream)?;
    let mut noise = noise(me.key, true)?;
    let ours = Hello::new(me, to, purpose, seal);
    timed.write(&[&preamble()[..], &greeting(&mut noise, ours)?].concat())?;
    match timed.read::<1>()? {
        [ADMITTED] => {}
        [WRONG_SECRET] => return Err(Refusal::Secret),
        [MISDIRECTED] => return Err(Refusal::Misdirected(to)),
        _ => return Err(Refusal::Stranger),
    }
    let theirs = heard(&mut noise, &timed.read::<GREETING_BYTES>()?)?;
    if theirs.peer.process != to || theirs.to != me.process || theirs.peer.purpose != purpose {
        return Err(Refusal::Stranger);
    }
    let keys = noise.into_stateless_transport_mode().map_err(io::Error::other)?;
    compare(&mut timed, &keys, me, purpose)?;
    end(&stream)?;
    Ok((theirs.peer, channel(stream, keys, ours.seal || theirs.seal)))
}

/// Finds out who is on a connection that was accepted.
///
/// # Errors
///
/// Why it is refused.
pub fn accept(stream: TcpStream, me: &Introduction<'_>) -> Result<(Peer, Channel), Refusal> {
    let seal = leaves_this_machine(&stream)?;
    accept_with(stream, me, seal)
}

fn accept_with(stream: TcpStream, me: &Introduction<'_>, seal: bool) -> Result<(Peer, Channel), Refusal> {
    let mut timed = begin(&stream)?;
    let said: [u8; PREAMBLE_BYTES] = timed.read()?;
    if said != preamble() {
        if said.starts_with(&MAGIC) {
            timed.write(&[OTHER_VERSION])?;
        }
        return Err(Refusal::Stranger);
    }
    let mut noise = noise(me.key, false)?;
    let theirs = match heard(&mut noise, &timed.read::<GREETING_BYTES>()?) {
        Err(refusal @ Refusal::Secret) => {
            timed.write(&[WRONG_SECRET])?;
            return Err(refusal);
        }
        heard => heard?,
    };
    if theirs.to != me.process || theirs.peer.process <= me.process {
        timed.write(&[MISDIRECTED])?;
        return Err(Refusal::Misdirected(theirs.to));
    }
    let ours = Hello::new(me, theirs.peer.process, theirs.peer.purpose, seal);
    timed.write(&[&[ADMITTED][..], &greeting(&mut noise, ours)?].concat())?;
    let keys = noise.into_stateless_transport_mode().map_err(io::Error::other)?;
    compare(&mut timed, &keys, me, theirs.peer.purpose)?;
    end(&stream)?;
    Ok((theirs.peer, channel(stream, keys, ours.seal || theirs.seal)))
}

fn channel(stream: TcpStream, keys: StatelessTransportState, seal: bool) -> Channel {
    if seal { Channel::sealed(stream, keys, 1) } else { Channel::plain(stream) }
}

/// The next message of a handshake, with a hello in it.
fn greeting(noise: &mut HandshakeState, hello: Hello) -> io::Result<Vec<u8>> {
    let mut message = vec![0; GREETING_BYTES];
    let length = noise.write_message(&hello.to_bytes(), &mut message).map_err(io::Error::other)?;
    message.truncate(length);
    Ok(message)
}

/// What the next message of a handshake says; [`Refusal::Secret`] where it was made with another key.
fn heard(noise: &mut HandshakeState, message: &[u8]) -> Result<Hello, Refusal> {
    let mut hello = [0; GREETING_BYTES];
    let length = noise.read_message(message, &mut hello).map_err(|_| Refusal::Secret)?;
    Hello::parse(&hello[..length])
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

/// Both tell what they go by, and both look at it: whoever finds a difference knows what it is. On a connection for the
/// dataflow it is nothing, which shows that whoever said hello is still there.
fn compare(
    timed: &mut Timed<'_>,
    keys: &StatelessTransportState,
    me: &Introduction<'_>,
    purpose: Purpose,
) -> Result<(), Refusal> {
    let ours = match purpose {
        Purpose::Data => Vec::new(),
        Purpose::Control => serde_json::to_vec(me.fingerprint).map_err(io::Error::other)?,
    };
    if ours.len() > PART_BYTES_MAX {
        return Err(io::Error::other("the settings are too long to be compared").into());
    }
    let mut message = vec![0; ours.len() + TAG_BYTES];
    let length = keys.write_message(0, &ours, &mut message).map_err(io::Error::other)?;
    let told = u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
    timed.write(&[&told[..], &message[..length]].concat())?;
    let mut message = vec![0; usize::from(u16::from_le_bytes(timed.read()?))];
    timed.read_into(&mut message)?;
    let mut theirs = vec![0; message.len()];
    let length = keys.read_message(0, &message, &mut theirs).map_err(|_| altered())?;
    if purpose == Purpose::Data {
        return Ok(());
    }
    let theirs: Fingerprint = serde_json::from_slice(&theirs[..length]).map_err(|_| Refusal::Stranger)?;
    let differences = me.fingerprint.differences(&theirs);
    if differences.is_empty() { Ok(()) } else { Err(Refusal::Settings(differences)) }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
