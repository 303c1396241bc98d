//! How a process ends because of another one: each in a process of its own, of which this one is the other.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use super::*;
use crate::cluster::Member;
use crate::cluster::channel::Channel;
use crate::cluster::fingerprint::Fingerprint;
use crate::cluster::handshake::Key;
use crate::cluster::messages::{self, Failed, Message};

const CHILD: &str = "TIDEMARK_TEST_ENDS";

/// The child of the tests below: process 0, which is connected to process 1 there. Does nothing when run as a test itself.
#[test]
fn ending_child() {
    let Ok(how) = std::env::var(CHILD) else { return };
    let (how, address) = how.split_once(' ').unwrap();
    crate::logging::exit_on_panic();
    let member = Member {
        process: 0,
        addresses: ["here:1", "there:1"].map(str::to_owned).to_vec(),
        listen: String::new(),
        key: Key::of(b""),
        fingerprint: Fingerprint::single("", ""),
        join_timeout: Duration::from_millis(100),
        lost_after: Duration::from_millis(if how == "silent" { 400 } else { 60_000 }),
    };
    let stream = TcpStream::connect(address).unwrap();
    let (_links, _incoming) = Links::start(Arc::new(member), vec![None, Some(Channel::plain(stream))]).unwrap();
    match how {
        "bug" => drop(thread::spawn(|| panic!("lost a row"))),
        "broken" => {
            let panics = || panic!("timely communication error: reading data: socket closed");
            drop(thread::Builder::new().name("timely:recv-1".to_owned()).spawn(panics).unwrap());
        }
        _ => {}
    }
    stand_still();
}

/// Lets a child end in some way while `other` does what process 1 does.
fn ends(how: &str, other: impl FnOnce(TcpStream) + Send) -> (Option<i32>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "cluster::ending::tests::ending_child", "--nocapture"]);
    child.env(CHILD, format!("{how} {}", listener.local_addr().unwrap()));
    thread::scope(|scope| {
        scope.spawn(|| other(listener.accept().unwrap().0));
        let Output { status, stderr, .. } = child.output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    })
}

/// Hears what process 0 says to its end.
fn last_words(mut stream: TcpStream) -> Option<Failed> {
    let mut failed = None;
    while let Ok(message) = messages::read(&mut stream) {
        if let Message::Failed(said) = message {
            failed = Some(said);
        }
    }
    failed
}

#[test]
fn a_process_that_closes_its_link_is_lost() {
    let (code, said) = ends("closed", drop);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("process 1 (there:1) is lost: it closed its connection"), "{said}");
}

#[test]
fn a_process_that_is_silent_is_lost_and_not_told_so() {
    let mut told = None;
    let (code, said) = ends("silent", |stream| told = last_words(stream));
    assert_eq!((code, told), (Some(3), None), "{said}");
    assert!(said.contains("process 1 (there:1) is lost: no sign of life for 400ms"), "{said}");
}

#[test]
fn a_connection_of_the_dataflow_that_breaks_is_a_loss_and_no_bug() {
    let (code, said) = ends("broken", |stream| drop(last_words(stream)));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("process 1 (there:1) is lost") && !said.contains("bug"), "{said}");
}

#[test]
fn what_another_process_says_last_is_why_this_one_ends() {
    let words = Failed { status: 5, why: "process 1 (there:1): the input has changed".to_owned() };
    let (code, said) = ends("told", |mut stream| {
        messages::write(&mut stream, &Message::Failed(words)).unwrap();
        last_words(stream);
    });
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("error: process 1 (there:1): the input has changed"), "{said}");
}

#[test]
fn others_are_told_of_a_bug() {
    let mut told = None;
    let (code, said) = ends("bug", |stream| told = last_words(stream));
    let told = told.unwrap();
    assert_eq!((code, told.status()), (Some(70), ExitStatus::Bug), "{said}");
    assert!(told.why.contains("process 0 (here:1)") && told.why.contains("lost a row"), "{}", told.why);
    assert!(said.contains("a bug in Tidemark: lost a row"), "{said}");
}
