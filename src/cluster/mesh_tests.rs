//! Processes that come together, in this one: with strangers in between, and with those that do not fit.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::thread;

use super::super::fingerprint::Fingerprint;
use super::super::handshake::Key;
use super::*;

const SECRET: &[u8] = b"0123456789abcdef";

/// So many addresses that nobody listens on.
fn addresses(count: usize) -> Vec<String> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

fn member(process: usize, addresses: &[String], secret: &[u8], workers: &str, patience_ms: u64) -> Arc<Member> {
    Arc::new(Member {
        process,
        listen: addresses[process].clone(),
        addresses: addresses.to_vec(),
        key: Key::of(secret),
        fingerprint: Fingerprint::single("runtime.workers", workers),
        join_timeout: Duration::from_millis(patience_ms),
        lost_after: Duration::from_secs(5),
    })
}

fn good(process: usize, addresses: &[String]) -> Arc<Member> {
    member(process, addresses, SECRET, "2", 60_000)
}

type Joined = thread::JoinHandle<Result<Mesh, Error>>;

fn start(member: Arc<Member>) -> Joined {
    thread::spawn(move || join(&member, &AtomicBool::new(false)))
}

fn whole(joined: Joined, process: usize, processes: usize) -> Mesh {
    let mesh = joined.join().unwrap().unwrap_or_else(|error| panic!("process {process}: {error}"));
    for connections in [&mesh.data, &mesh.control] {
        let there: Vec<bool> = connections.iter().map(Option::is_some).collect();
        assert_eq!(there, (0..processes).map(|other| other != process).collect::<Vec<_>>());
    }
    mesh
}

#[test]
fn three_processes_come_together_in_any_order_and_each_connection_is_the_right_one() {
    let addresses = addresses(3);
    let joined: Vec<_> = [2, 0, 1].map(|process| (process, start(good(process, &addresses)))).into_iter().collect();
    let mut meshes: Vec<_> = joined.into_iter().map(|(process, joined)| (process, whole(joined, process, 3))).collect();
    meshes.sort_by_key(|(process, _)| *process);
    for (process, mesh) in &mut meshes {
        for (to, socket) in mesh.data.iter_mut().enumerate().filter_map(|(to, socket)| Some((to, socket.as_mut()?))) {
            socket.write_all(&[u8::try_from(*process).unwrap(), u8::try_from(to).unwrap()]).unwrap();
        }
    }
    for (process, mesh) in &mut meshes {
        for (from, socket) in mesh.data.iter_mut().enumerate().filter_map(|(to, socket)| Some((to, socket.as_mut()?))) {
            let mut said = [0; 2];
            socket.read_exact(&mut said).unwrap();
            assert_eq!((usize::from(said[0]), usize::from(said[1])), (from, *process));
        }
    }
}

#[test]
fn strangers_hold_up_nobody() {
    let addresses = addresses(2);
    let zero = start(good(0, &addresses));
    let connect = || loop {
        if let Ok(stream) = TcpStream::connect(&addresses[0]) {
            break stream;
        }
        thread::sleep(PAUSE);
    };
    // One that says nothing, one that says what we do not understand, and one with another secret.
    let silent = connect();
    connect().write_all(&[7; 500]).unwrap();
    let other = start(member(1, &addresses, b"another secret of 26 bytes", "2", 60_000));
    let refused = other.join().unwrap().err().unwrap();
    assert!(matches!(&refused, Error::Setting(why) if why.contains("secret")), "{refused}");
    let one = start(good(1, &addresses));
    whole(zero, 0, 2);
    whole(one, 1, 2);
    drop(silent);
}

#[test]
fn the_oldest_handshake_ends_where_there_are_too_many() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut handshakes = Handshakes::default();
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..=HANDSHAKES_MAX {
        held.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (stream, from) = listener.accept().unwrap();
        handshakes.begin(from, stream);
    }
    held[0].set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(held[0].read(&mut [0]).unwrap(), 0, "the oldest is closed");
    for stream in &mut held[1..] {
        stream.set_nonblocking(true).unwrap();
        let open = stream.read(&mut [0]).unwrap_err();
        assert_eq!(open.kind(), io::ErrorKind::WouldBlock);
    }
    handshakes.end(held[1].local_addr().unwrap());
    assert_eq!(handshakes.0.len(), HANDSHAKES_MAX - 1);
}

/// They hold more handshakes than there may be, and come again whenever one is ended.
#[test]
fn a_flood_of_strangers_holds_up_nobody() {
    let addresses = addresses(2);
    let zero = start(good(0, &addresses));
    let over = Arc::new(AtomicBool::new(false));
    let flood = {
        let (over, address) = (Arc::clone(&over), addresses[0].clone());
        thread::spawn(move || {
            let (mut held, mut came) = (VecDeque::new(), 0_u64);
            while !over.load(Ordering::Acquire) {
                if let Ok(stream) = TcpStream::connect(&address) {
                    held.push_back(stream);
                    came += 1;
                }
                if held.len() > 3 * HANDSHAKES_MAX {
                    held.pop_front();
                    thread::sleep(Duration::from_millis(1));
                }
            }
            came
        })
    };
    while TcpStream::connect(&addresses[0]).is_err() {
        thread::sleep(PAUSE);
    }
    let one = start(good(1, &addresses));
    whole(zero, 0, 2);
    whole(one, 1, 2);
    over.store(true, Ordering::Release);
    assert!(flood.join().unwrap() > 0);
}

#[test]
fn a_process_with_other_settings_is_refused_and_its_place_stays_free() {
    let addresses = addresses(2);
    let zero = start(good(0, &addresses));
    let other = start(member(1, &addresses, SECRET, "4", 60_000)).join().unwrap().err().unwrap();
    let words = "runtime.workers is 4 here and 2 there";
    assert!(matches!(&other, Error::Setting(why) if why.contains(words)), "{other}");
    let one = start(good(1, &addresses));
    whole(zero, 0, 2);
    whole(one, 1, 2);
}

#[test]
fn whoever_waits_in_vain_says_for_whom_and_why() {
    let addresses = addresses(2);
    let alone = start(member(0, &addresses, SECRET, "2", 50)).join().unwrap().err().unwrap();
    let name = format!("process 1 ({})", addresses[1]);
    assert!(matches!(&alone, Error::Unavailable(why) if why.contains(&name)), "{alone}");
    // The one that came did not fit: that is the reason.
    let zero = start(member(0, &addresses, SECRET, "2", 5_000));
    let one = start(member(1, &addresses, SECRET, "4", 5_000)).join().unwrap().err().unwrap();
    let zero = zero.join().unwrap().err().unwrap();
    assert!(matches!(&zero, Error::Setting(why) if why.contains("runtime.workers is 2 here and 4 there")), "{zero}");
    assert!(matches!(one, Error::Setting(_)));
}

#[test]
fn connections_of_an_earlier_start_are_replaced() {
    let pair = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (Channel::plain(TcpStream::connect(listener.local_addr().unwrap()).unwrap()), listener)
    };
    let peer = |incarnation, purpose| Peer { process: 1, incarnation, purpose };
    let mut arrivals = Arrivals::default();
    arrivals.add(peer(7, Purpose::Control), pair().0);
    arrivals.add(peer(8, Purpose::Data), pair().0);
    assert!(!arrivals.is_here(1), "one of each start is no pair");
    arrivals.add(peer(8, Purpose::Control), pair().0);
    assert!(arrivals.is_here(1));
}
