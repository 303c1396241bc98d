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

type Both = (Result<Peer, Refusal>, Result<Peer, Refusal>);

/// What the connecting and the listening side make of each other.
fn meet(connecting: &Party, listening: &Party, to: usize, purpose: Purpose) -> Both {
    let (left, right) = pair();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let accepted = accept(&right, &listening.me());
            drop(right);
            accepted
        });
        let connected = connect(&left, &connecting.me(), to, purpose);
        drop(left);
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
fn a_proof_is_worth_nothing_on_another_connection() {
    let (one, zero) = (Party::new(1, SECRET, "2"), Party::new(0, SECRET, "2"));
    // Somebody between the two notes what is said, and says it again.
    let overheard = {
        let (left, right) = pair();
        thread::scope(|scope| {
            let accepted = scope.spawn(|| accept(&right, &zero.me()));
            let hello = Hello::new(&one.me(), 0, Purpose::Data).unwrap();
            let mut timed = begin(&left).unwrap();
            timed.write(&hello.bytes).unwrap();
            let theirs = Hello::parse(timed.read().unwrap()).unwrap();
            let proof = proof(&one.key, CONNECTS, &hello, &theirs);
            timed.write(proof.as_bytes()).unwrap();
            accepted.join().unwrap().unwrap();
            (hello.bytes, *proof.as_bytes())
        })
    };
    let (left, right) = pair();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| accept(&right, &zero.me()));
        let mut timed = begin(&left).unwrap();
        timed.write(&overheard.0).unwrap();
        timed.read::<HELLO_BYTES>().unwrap();
        timed.write(&overheard.1).unwrap();
        assert!(matches!(accepted.join().unwrap(), Err(Refusal::Secret)));
    });
}

#[test]
fn what_one_side_says_cannot_be_sent_back_to_it() {
    // A mirror: whatever the connecting side says comes back.
    let (left, right) = pair();
    let one = Party::new(1, SECRET, "2");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut timed = begin(&right).unwrap();
            let hello: [u8; HELLO_BYTES] = timed.read().unwrap();
            let _ = timed.write(&hello);
        });
        assert!(matches!(connect(&left, &one.me(), 0, Purpose::Data), Err(Refusal::Stranger)));
    });
}

#[test]
fn garbage_and_a_closed_connection_are_refused_at_once() {
    let zero = Party::new(0, SECRET, "2");
    for garbage in [&b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody\r\nAccept: */*\r\n\r\n"[..], b""] {
        let (left, right) = pair();
        begin(&left).unwrap().write(garbage).unwrap();
        drop(left);
        assert!(matches!(accept(&right, &zero.me()), Err(Refusal::Stranger | Refusal::Broken(_))));
    }
}
