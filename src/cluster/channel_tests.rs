//! What is said arrives as it was said, or not at all; whoever listens learns how much it was, and nothing else.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::TcpListener;
use std::thread;

use snow::Builder;

use super::*;

const FEW: u64 = 8;

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (connected, listener.accept().unwrap().0)
}

/// The keys of both sides.
fn keys() -> [StatelessTransportState; 2] {
    let builder = || Builder::new("Noise_NNpsk0_25519_AESGCM_SHA256".parse().unwrap()).psk(0, &[7; 32]).unwrap();
    let (mut left, mut right) = (builder().build_initiator().unwrap(), builder().build_responder().unwrap());
    let (mut message, mut nothing) = ([0; 64], [0; 64]);
    let length = left.write_message(&[], &mut message).unwrap();
    right.read_message(&message[..length], &mut nothing).unwrap();
    let length = right.write_message(&[], &mut message).unwrap();
    left.read_message(&message[..length], &mut nothing).unwrap();
    [left, right].map(|state| state.into_stateless_transport_mode().unwrap())
}

fn sealed() -> (Channel, Channel) {
    let ((left, right), [of_left, of_right]) = (sockets(), keys());
    (Channel::sealed_with(left, of_left, 1, FEW), Channel::sealed_with(right, of_right, 1, FEW))
}

/// Not of any pattern that the length of a frame could go with.
fn text(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 ^ seed).collect()
}

/// Both directions at once, by clones, as timely does it; with more frames than are under one key.
#[test]
fn what_is_said_in_both_directions_at_once_arrives_as_it_was_said() {
    let lengths =
        [1, 2, 15, 16, 17, 1_000, PART_BYTES_MAX - 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 1 << 20, 3, 1 << 16];
    let said: Vec<u8> = lengths.iter().flat_map(|bytes| text(*bytes, 3)).collect();
    for read_at_once in [1 << 20, 70_000, 1_000] {
        let (left, right) = sealed();
        thread::scope(|scope| {
            for channel in [&left, &right] {
                let (mut writes, mut reads) = (channel.try_clone().unwrap(), channel.try_clone().unwrap());
                scope.spawn(move || {
                    for bytes in lengths {
                        writes.write_all(&text(bytes, 3)).unwrap();
                    }
                    writes.shutdown(Shutdown::Write).unwrap();
                });
                let said = &said;
                scope.spawn(move || {
                    let (mut heard, mut bytes) = (Vec::new(), vec![0; read_at_once]);
                    loop {
                        match reads.read(&mut bytes).unwrap() {
                            0 => break,
                            count => heard.extend_from_slice(&bytes[..count]),
                        }
                    }
                    assert!(heard == *said, "{} of {} bytes", heard.len(), said.len());
                });
            }
        });
    }
}

/// The frames of what one side has said.
fn frames(said: &[&[u8]]) -> (Vec<Vec<u8>>, StatelessTransportState) {
    let ((left, mut wire), [of_left, of_right]) = (sockets(), keys());
    let mut left = Channel::sealed_with(left, of_left, 1, FEW);
    said.iter().for_each(|text| left.write_all(text).unwrap());
    drop(left);
    let mut bytes = Vec::new();
    wire.read_to_end(&mut bytes).unwrap();
    let (mut frames, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((length, _)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let (frame, after) = rest.split_at(LENGTH_BYTES + usize::from(u16::from_le_bytes(*length)));
        frames.push(frame.to_vec());
        rest = after;
    }
    (frames, of_right)
}

/// What the other side hears of these bytes, and how that ends.
fn hears(wire: &[u8], keys: StatelessTransportState) -> (Vec<u8>, io::Result<()>) {
    let (mut writes, right) = sockets();
    let mut right = Channel::sealed_with(right, keys, 1, FEW);
    writes.write_all(wire).unwrap();
    drop(writes);
    let (mut heard, mut bytes) = (Vec::new(), [0; 100]);
    loop {
        match right.read(&mut bytes) {
            Ok(0) => return (heard, Ok(())),
            Ok(count) => heard.extend_from_slice(&bytes[..count]),
            Err(error) => return (heard, Err(error)),
        }
    }
}

const SAID: [&[u8]; 4] = [b"deposit 10.00", b"deposit 20.00", b"withdrawal 5.00", b"the end"];

#[test]
fn who_listens_reads_nothing_and_no_frame_is_like_another() {
    let (frames, keys) = frames(&[SAID[0]; 30]);
    let all = frames.concat();
    assert!(!all.windows(7).any(|window| window == b"deposit"), "it can be read");
    assert!((0..30).all(|at| !frames[..at].contains(&frames[at])), "the same looks the same");
    assert_eq!(hears(&all, keys).0, SAID[0].repeat(30));
}

#[test]
fn what_was_altered_left_out_repeated_or_moved_ends_the_connection_and_is_not_heard() {
    let (sound, keys) = frames(&SAID);
    assert_eq!(hears(&sound.concat(), keys).0, SAID.concat());
    type Harm = fn(&mut Vec<Vec<u8>>);
    let harms: [(&str, Harm, usize); 7] = [
        ("a bit of the text", |frames| frames[1][LENGTH_BYTES + 3] ^= 1, 1),
        ("a bit of the tag", |frames| *frames[1].last_mut().unwrap() ^= 1, 1),
        ("the length", |frames| frames[1][0] -= 1, 1),
        ("a frame less", |frames| drop(frames.remove(1)), 1),
        ("a frame twice", |frames| frames.insert(1, frames[0].clone()), 1),
        ("another order", |frames| frames.swap(1, 2), 1),
        ("a frame of nothing", |frames| frames.insert(2, vec![0, 0]), 2),
    ];
    for (what, harm, heard) in harms {
        let (mut frames, keys) = frames(&SAID);
        harm(&mut frames);
        let (found, end) = hears(&frames.concat(), keys);
        assert_eq!(found, SAID[..heard].concat(), "{what}");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData, "{what}");
    }
    let (mut cut, keys) = frames(&SAID);
    cut[3].pop();
    let (found, end) = hears(&cut.concat(), keys);
    assert_eq!((found, end.unwrap_err().kind()), (SAID[..3].concat(), io::ErrorKind::UnexpectedEof));
}

/// Somebody on the way who lets a byte through now and then, or nothing.
#[test]
fn a_frame_that_does_not_come_in_time_ends_the_connection_and_signs_of_life_keep_it() {
    let (frames, keys) = frames(&SAID[..1]);
    let (mut writes, right) = sockets();
    let mut right = Channel::sealed_with(right, keys, 1, FEW);
    right.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for byte in frames.concat().chunks(1) {
                if writes.write_all(byte).is_err() {
                    return;
                }
                sleep(Duration::from_millis(50));
            }
        });
        let error = right.read(&mut [0; 100]).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        drop(right);
    });
    let (mut left, mut right) = sealed();
    for channel in [&left, &right] {
        channel.keep_alive(Duration::from_millis(20), Duration::from_secs(60), Duration::from_secs(60)).unwrap();
    }
    // Signs of life are not heard as words, and change no key of one side alone.
    sleep(Duration::from_millis(20 * 3 * FEW));
    left.write_all(SAID[0]).unwrap();
    let mut heard = [0; SAID[0].len()];
    right.read_exact(&mut heard).unwrap();
    assert_eq!(heard, *SAID[0]);
}

/// What another side says cannot be sent back to it: each direction has a key of its own.
#[test]
fn a_mirror_is_not_heard() {
    let ((left, mut wire), [of_left, _]) = (sockets(), keys());
    let mut left = Channel::sealed_with(left, of_left, 1, FEW);
    left.write_all(SAID[0]).unwrap();
    let mut bytes = [0; 256];
    let count = wire.read(&mut bytes).unwrap();
    wire.write_all(&bytes[..count]).unwrap();
    assert_eq!(left.read(&mut bytes).unwrap_err().kind(), io::ErrorKind::InvalidData);
}
