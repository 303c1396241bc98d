//! Both sides of the handshake, and strangers on either.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::TcpListener;
use std::thread;

use super::*;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (connected, listener.accept().unwrap().0)
}

struct Party {
    process: usize,
    key: Key,
    fingerprint: Fingerprint,
}

impl Party {
    fn new(process: usize, secret: &str, workers: &str) -> Party {
        Party { process, key: Key::of(secret.as_bytes()), fingerprint: Fingerprint::single("runtime.workers", workers) }
    }

    fn me(&self) -> Introduction<'_> {
        let incarnation = 70 + self.process as u64;
        let Party { process, key, fingerprint } = self;
        Introduction { process: *process, processes: 3, incarnation, key, fingerprint }
    }
}

type Met = Result<(Peer, Channel), Refusal>;
type Both = (Result<Peer, Refusal>, Result<Peer, Refusal>);

/// What the connecting and the listening side make of each other.
fn meet(connecting: &Party, listening: &Party, to: usize, purpose: Purpose) -> Both {
    let (connected, accepted) = meet_with(connecting, listening, to, purpose, [false, false]);
    let peer = |met: Met| met.map(|(peer, _)| peer);
    (peer(connected), peer(accepted))
}

/// The same, where each of them would have the connection encrypted or not.
fn meet_with(connecting: &Party, listening: &Party, to: usize, purpose: Purpose, seal: [bool; 2]) -> (Met, Met) {
    let (left, right) = pair();
    thread::scope(|scope| {
        let accepted = scope.spawn(move || accept_with(right, &listening.me(), seal[1]));
        let connected = connect_with(left, &connecting.me(), to, purpose, seal[0]);
        (connected, accepted.join().unwrap())
    })
}

const SECRET: &str = "0123456789abcdef";

#[test]
fn processes_with_one_secret_and_one_set_of_settings_meet() {
    let (one, zero) = (Party::new(1, SECRET, "2"), Party::new(0, SECRET, "2"));
    for purpose in [Purpose::Data, Purpose::Control] {
        let (connected, accepted) = meet(&one, &zero, 0, purpose);
        assert_eq!(connected.unwrap(), Peer { process: 0, incarnation: 70, purpose });
        assert_eq!(accepted.unwrap(), Peer { process: 1, incarnation: 71, purpose });
    }
}

#[test]
fn another_secret_is_refused_on_both_sides() {
    let (one, zero) = (Party::new(1, "another secret of 26 bytes", "2"), Party::new(0, SECRET, "2"));
    let (connected, accepted) = meet(&one, &zero, 0, Purpose::Control);
    assert!(matches!(connected, Err(Refusal::Secret)), "{connected:?}");
    assert!(matches!(accepted, Err(Refusal::Secret)), "{accepted:?}");
}

#[test]
fn other_settings_are_refused_on_both_sides_by_key_and_values() {
    let (one, zero) = (Party::new(1, SECRET, "4"), Party::new(0, SECRET, "2"));
    let (connected, accepted) = meet(&one, &zero, 0, Purpose::Control);
    let (connected, accepted) = (connected.unwrap_err().to_string(), accepted.unwrap_err().to_string());
    assert!(connected.contains("runtime.workers is 4 here and 2 there"), "{connected}");
    assert!(accepted.contains("runtime.workers is 2 here and 4 there"), "{accepted}");
}

#[test]
fn a_connection_that_means_another_process_is_refused() {
    // It takes 0 for 2, which the hello that comes back shows.
    let (connected, accepted) = meet(&Party::new(3, SECRET, "2"), &Party::new(0, SECRET, "2"), 2, Purpose::Data);
    assert!(connected.is_err() && accepted.is_err(), "{connected:?} {accepted:?}");
    // The smaller number listens.
    let (connected, accepted) = meet(&Party::new(1, SECRET, "2"), &Party::new(1, SECRET, "2"), 1, Purpose::Data);
    assert!(matches!(connected, Err(Refusal::Misdirected(1))), "{connected:?}");
    assert!(matches!(accepted, Err(Refusal::Misdirected(1))), "{accepted:?}");
}

#[test]
fn a_connection_is_encrypted_as_soon_as_one_side_would_have_it_so() {
    let (one, zero) = (Party::new(1, SECRET, "2"), Party::new(0, SECRET, "2"));
    for purpose in [Purpose::Data, Purpose::Control] {
        for seal in [[false, false], [false, true], [true, false], [true, true]] {
            let (connected, accepted) = meet_with(&one, &zero, 0, purpose, seal);
            let (mut connected, mut accepted) = (connected.unwrap().1, accepted.unwrap().1);
            let wanted = seal[0] || seal[1];
            assert_eq!([connected.is_sealed(), accepted.is_sealed()], [wanted, wanted]);
            connected.write_all(b"there").unwrap();
            accepted.write_all(b"back!").unwrap();
            let mut heard = [[0; 5]; 2];
            accepted.read_exact(&mut heard[0]).unwrap();
            connected.read_exact(&mut heard[1]).unwrap();
            assert_eq!(heard, [*b"there", *b"back!"]);
        }
    }
    let (left, right) = pair();
    assert!(!leaves_this_machine(&left).unwrap() && !leaves_this_machine(&right).unwrap());
}

/// Notes all that the connecting side says.
fn overheard(one: &Party, zero: &Party, purpose: Purpose) -> Vec<u8> {
    let ((left, middle), (onwards, right)) = (pair(), pair());
    let (from_left, from_right) = (middle.try_clone().unwrap(), onwards.try_clone().unwrap());
    let pass_on = |mut from: TcpStream, mut to: TcpStream| {
        let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            all.extend_from_slice(&bytes[..count]);
            to.write_all(&bytes[..count]).unwrap();
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
        all
    };
    thread::scope(|scope| {
        let said = scope.spawn(move || pass_on(from_left, onwards));
        scope.spawn(move || pass_on(from_right, middle));
        let accepted = scope.spawn(|| accept(right, &zero.me()));
        drop(connect(left, &one.me(), 0, purpose).unwrap());
        drop(accepted.join().unwrap().unwrap());
        said.join().unwrap()
    })
}

#[test]
fn what_was_overheard_is_worth_nothing_on_another_connection_and_tells_nothing() {
    let (one, zero) =
        (Party::new(1, SECRET, "a setting that is told"), Party::new(0, SECRET, "a setting that is told"));
    for purpose in [Purpose::Data, Purpose::Control] {
        let said = overheard(&one, &zero, purpose);
        assert!(said.len() >= PREAMBLE_BYTES + GREETING_BYTES + 2 + TAG_BYTES);
        assert!(!String::from_utf8_lossy(&said).contains("told"), "settings are hidden");
        let (mut left, right) = pair();
        left.write_all(&said).unwrap();
        left.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(accept(right, &zero.me()), Err(Refusal::Broken(_))));
        // Any bit of it counts.
        for at in [PREAMBLE_BYTES, PREAMBLE_BYTES + 40, PREAMBLE_BYTES + GREETING_BYTES - 1] {
            let (mut left, right) = pair();
            let mut said = said.clone();
            said[at] ^= 1;
            left.write_all(&said).unwrap();
            assert!(matches!(accept(right, &zero.me()), Err(Refusal::Secret)), "byte {at}");
        }
    }
}

#[test]
fn what_one_side_says_cannot_be_sent_back_to_it() {
    // A mirror: whatever the connecting side says comes back.
    let (left, right) = pair();
    let one = Party::new(1, SECRET, "2");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut timed = begin(&right).unwrap();
            timed.read::<PREAMBLE_BYTES>().unwrap();
            let greeting: [u8; GREETING_BYTES] = timed.read().unwrap();
            let _ = timed.write(&[&[ADMITTED][..], &greeting].concat());
        });
        assert!(matches!(connect(left, &one.me(), 0, Purpose::Data), Err(Refusal::Secret)));
    });
}

#[test]
fn another_version_is_told_so() {
    let (left, mut right) = pair();
    let one = Party::new(1, SECRET, "2");
    thread::scope(|scope| {
        let connected = scope.spawn(|| connect(left, &one.me(), 0, Purpose::Data));
        right.write_all(&[OTHER_VERSION]).unwrap();
        assert!(matches!(connected.join().unwrap(), Err(Refusal::Stranger)));
    });
    let (mut left, right) = pair();
    left.write_all(&[&MAGIC[..], &1_u16.to_le_bytes(), &[0; 47]].concat()).unwrap();
    assert!(matches!(accept(right, &Party::new(0, SECRET, "2").me()), Err(Refusal::Stranger)));
    assert_eq!(begin(&left).unwrap().read::<1>().unwrap(), [OTHER_VERSION]);
}

#[test]
fn garbage_and_a_closed_connection_are_refused_at_once() {
    let zero = Party::new(0, SECRET, "2");
    for garbage in [&b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody\r\nAccept: */*\r\n\r\n"[..], b""] {
        let (left, right) = pair();
        begin(&left).unwrap().write(garbage).unwrap();
        drop(left);
        assert!(matches!(accept(right, &zero.me()), Err(Refusal::Stranger | Refusal::Broken(_))));
    }
}
