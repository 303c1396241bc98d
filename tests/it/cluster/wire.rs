//! What goes between two hosts: nobody on the way can read it, or change it. The processes are those of one machine, at an
//! address that others can reach.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use super::crew::{Places, all_well, ended_because, finish};
use crate::crash::job::{EAGER, Job};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::{Running, skipped};

/// What every event of the test has in it.
const KNOWN: &[u8] = b"user-";

/// An address of this machine that is not only its own; none where it has no network.
fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only chooses the way.
    socket.connect("203.0.113.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// What is done to a connection once it has come to the byte of that number.
#[derive(Clone, Copy)]
enum Harm {
    /// That byte is changed.
    Change(usize),
    /// It and all after it are held up.
    HoldUp(usize),
}

/// Somebody between the processes, who notes what goes to process 0 and may change it.
struct Middle {
    address: String,
    noted: Arc<Mutex<Vec<u8>>>,
}

impl Middle {
    /// Passes on to `to`. Of each connection something may be done to the byte of that number.
    fn start(ip: IpAddr, to: String, harm: Option<Harm>) -> Middle {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let (address, noted) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(Vec::new())));
        let notes = Arc::clone(&noted);
        thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                // Whoever comes before process 0 listens comes again.
                let Ok(onwards) = TcpStream::connect(&to) else { continue };
                let (back, forth) = ((onwards.try_clone(), from.try_clone()), Arc::clone(&notes));
                thread::spawn(move || pass_on(from, onwards, harm, Some(&forth)));
                thread::spawn(move || pass_on(back.0.unwrap(), back.1.unwrap(), None, None));
            }
        });
        Middle { address, noted }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, harm: Option<Harm>, noted: Option<&Mutex<Vec<u8>>>) {
    let (mut bytes, mut passed) = (vec![0; 1 << 16], 0);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let part = &mut bytes[..count];
        let before = passed;
        passed += count;
        match harm {
            Some(Harm::Change(at)) if (before..passed).contains(&at) => part[at - before] ^= 1,
            // It is taken, and goes no further.
            Some(Harm::HoldUp(at)) if passed > at => continue,
            _ => {}
        }
        if let Some(noted) = noted {
            noted.lock().unwrap().extend_from_slice(part);
        }
        if to.write_all(part).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn job() -> Job {
    Job::new(&eventful(88, &[900, 870, 890, 910]), Rules::epochs_of(240), "")
}

/// Starts two processes with somebody in between.
fn start(job: &Job, ip: IpAddr, harm: Option<Harm>, more: &str) -> (Vec<Running>, Middle) {
    let free = || TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().to_string();
    let listens = free();
    let middle = Middle::start(ip, listens.clone(), harm);
    let places = Places { addresses: vec![middle.address.clone(), free()], ..Places::of(2) };
    let start = |process: usize| {
        let listen = if process == 0 { format!("--set cluster.listen={listens}") } else { String::new() };
        places.start(job, process, 1, &format!("{listen} {EAGER} {more}"), "")
    };
    ((0..2).map(start).collect(), middle)
}

#[test]
fn what_goes_between_hosts_cannot_be_read_on_the_way() {
    let Some(ip) = address() else { return skipped("this machine has no address for others") };
    let noted = |ip| {
        let job = job();
        let (crew, middle) = start(&job, ip, None, "");
        all_well(crew);
        job.check();
        middle.noted.lock().unwrap().clone()
    };
    let reads = |noted: &[u8]| noted.windows(KNOWN.len()).filter(|window| *window == KNOWN).count();
    // On the machine itself it goes as it is, so the search finds what is there.
    let inside = noted("127.0.0.1".parse().unwrap());
    assert!(reads(&inside) > 100, "{} of {} bytes", reads(&inside), inside.len());
    let outside = noted(ip);
    assert_eq!(reads(&outside), 0);
    assert!(outside.len() > inside.len() / 2, "{} and {} bytes", outside.len(), inside.len());
    // What is encrypted cannot be made shorter.
    let shortened = zstd_length(&outside);
    assert!(shortened * 100 > outside.len() * 95, "{shortened} of {} bytes", outside.len());
}

fn zstd_length(bytes: &[u8]) -> usize {
    zstd::encode_all(bytes, 3).unwrap().len()
}

#[test]
fn what_is_changed_on_the_way_ends_both_and_changes_nothing() {
    let Some(ip) = address() else { return skipped("this machine has no address for others") };
    let job = job();
    // Somewhere in what follows the handshake, on whichever connection comes so far.
    for at in [3_000, 20_000] {
        let (crew, _middle) = start(&job, ip, Some(Harm::Change(at)), "");
        let ended: Vec<_> = crew.into_iter().map(Running::ended).collect();
        ended_because(&ended[0], 3, &["process 1 ", "is lost", "what came was altered on the way"]);
        assert_eq!(ended[1].code(), 3, "{}", ended[1].stderr);
    }
    finish(&job, 2, 1);
    job.check();
    job.case.tidemark(&["evidence", "--output", "out"]).well();
}

/// The connection of the dataflow carries more than the one for messages, and is the first to come so far.
#[test]
fn what_is_held_up_on_the_way_is_lost_as_a_process_is() {
    let Some(ip) = address() else { return skipped("this machine has no address for others") };
    let job = job();
    let (crew, _middle) = start(&job, ip, Some(Harm::HoldUp(20_000)), "--set cluster.lost_after=2s");
    for ended in crew.into_iter().map(Running::ended) {
        assert_eq!(ended.code(), 3, "{}", ended.stderr);
        assert!(ended.stderr.contains("is lost"), "{}", ended.stderr);
    }
    finish(&job, 2, 1);
    job.check();
}
