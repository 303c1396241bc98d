//! An instance that serves, and a client as small as can be: what goes over the wire is what a test says.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::data::Event;
use crate::program::{Case, Running, tidemark};

/// A run whose console is on some free port.
pub(super) struct Served {
    pub(super) running: Running,
    pub(super) address: String,
}

impl Served {
    /// Starts `run` with these arguments, and waits until it serves.
    pub(super) fn start(case: &Case, args: &str, environment: &[(&str, &str)]) -> Served {
        let fixed = "run --output out --console 127.0.0.1:0 --set log.level=warn,tidemark=debug,deltalake_core=error";
        let args: Vec<&str> = fixed.split_whitespace().chain(args.split_whitespace()).collect();
        let mut command = tidemark(case.root(), args);
        command.envs(environment.iter().copied()).stdin(Stdio::piped());
        Served::of(Running::start(&mut command))
    }

    /// One that has just been started.
    pub(super) fn of(mut running: Running) -> Served {
        running.await_line("console on ");
        let line = running.log().lines().find(|line| line.contains("console on ")).unwrap().to_owned();
        let address = line.split("http://").nth(1).unwrap().trim_end_matches('/').to_owned();
        Served { running, address }
    }

    /// One that has read these events from standard input, and published them. It goes on for as long as the pipe is kept.
    pub(super) fn with_events(case: &Case, events: usize, args: &str) -> (Served, ChildStdin) {
        let stream = format!("generate --stdout --events {events} --seed 11 --users 40 --start 2025-01-01T00:00:00Z");
        let faults = "--duplicates 0.05 --invalid 0.08 --late 0.02 --set dedup.watermark_delay=1s";
        let stream: Vec<&str> = stream.split_whitespace().chain(faults.split_whitespace()).collect();
        let body = case.tidemark(&stream).well().stdout;
        let epochs = format!("--input - --epoch-events {} --watermark-delay 1s {args}", events / 4);
        let mut served = Served::start(case, &epochs, &[]);
        let mut pipe = served.running.take_stdin();
        pipe.write_all(body.as_bytes()).unwrap();
        served.await_that("/api/v1/all", |all| all["tables"]["epoch"] == 4);
        (served, pipe)
    }

    /// One that reads a file and another one that is half an hour ahead of it. Publishing stands still before either is
    /// read to its end, and so everything else does.
    pub(super) fn held_back(case: &Case) -> Served {
        let lines = |name: &str, ahead: i64| {
            (0..600).map(|i| Event::new(&format!("{name}{i}"), ahead + i).line() + "\n").collect::<String>()
        };
        case.file("in/ahead.ndjson", lines("ahead", 1_800));
        case.file("in/slow.ndjson", lines("slow", 0));
        let args = "--input in --epoch-events 40 --workers 2 --set epochs.max_in_flight=4";
        Served::start(case, args, &[("FAILPOINTS", "before-table=2*off->return")])
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[("Host", &self.address)])
    }

    pub(super) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let head: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut stream = self.connect();
        stream.write_all(format!("{method} {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
        Answer::read(&mut stream)
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    pub(super) fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Listens to the stream until a picture says so.
    pub(super) fn await_that(&self, path: &str, says: impl Fn(&Value) -> bool) -> Value {
        assert_eq!(path, "/api/v1/all", "the stream tells of everything");
        let mut stream = self.connect();
        let request = format!("GET /api/v1/stream HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut heard = Vec::new();
        for _ in 0..200 {
            let picture = next_event(&mut stream, &mut heard);
            if says(&picture) {
                return picture;
            }
        }
        panic!("it never said so:\n{}", String::from_utf8_lossy(&heard));
    }
}

/// The next event of a stream. Chunks come one an event, so an event is what lies between `data: ` and an empty line.
pub(super) fn next_event(stream: &mut TcpStream, heard: &mut Vec<u8>) -> Value {
    loop {
        let text = String::from_utf8_lossy(heard).into_owned();
        if let Some(start) = text.find("data: ")
            && let Some(end) = text[start..].find("\n\n")
        {
            let event = serde_json::from_str(&text[start + 6..start + end]).unwrap();
            *heard = text.as_bytes()[start + end + 2..].to_vec();
            return event;
        }
        let mut part = [0; 1 << 16];
        let length = match stream.read(&mut part) {
            // This process was stopped and woken, whoever did that.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap(),
        };
        assert!(length > 0, "the stream has ended: {text}");
        heard.extend_from_slice(&part[..length]);
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn read(stream: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        // A server that closes a connection may reset it.
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines.filter_map(|line| line.split_once(": ")).find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}
