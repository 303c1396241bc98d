//! Spans of the epochs of a real run, as a collector receives them; and a run whose collector is slow, wrong or away.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;

use crate::data::eventful;
use crate::oracle::{Partition, Rules, check};
use crate::program::Case;

const EVENTS: usize = 40;

/// A collector that answers every request with this status, or never.
struct Collector {
    address: String,
    received: Receiver<Value>,
}

impl Collector {
    fn start(status: Option<&'static str>) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, received) = channel();
        std::thread::spawn(move || {
            // Those that get no answer are kept open.
            let mut kept = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                match status {
                    Some(status) => answer(stream, status, &sender),
                    None => kept.push(stream),
                }
            }
        });
        Collector { address, received }
    }

    fn run(&self, case: &Case) -> crate::program::Ended {
        let endpoint = format!("traces.endpoint=http://{}/", self.address);
        let fixed = "run --input in --output out --epoch-events 40 --workers 2 --checkpoint-interval 0s";
        case.tidemark(&fixed.split_whitespace().chain(["--set", &endpoint]).collect::<Vec<_>>())
    }

    /// The spans of everything that was received, by id.
    fn spans(&self) -> BTreeMap<String, Span> {
        let mut found = BTreeMap::new();
        for body in self.received.try_iter() {
            let resource = attributes(&body["resourceSpans"][0]["resource"]);
            assert_eq!(
                (resource["service.name"].as_str(), resource["tidemark.pipeline"].as_str()),
                ("tidemark", "tidemark")
            );
            for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap() {
                let span = Span::of(span);
                assert!(found.insert(span.id.clone(), span).is_none(), "a span came twice");
            }
        }
        found
    }
}

/// Answers the requests of one connection.
fn answer(stream: TcpStream, status: &str, received: &Sender<Value>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        assert_eq!(header("content-type").as_deref(), Some("application/json"));
        let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        received.send(serde_json::from_slice(&body).unwrap()).unwrap();
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}").as_bytes()).unwrap();
    }
}

#[derive(Clone, Debug)]
struct Span {
    id: String,
    trace: String,
    parent: Option<String>,
    name: String,
    from: u64,
    to: u64,
    attributes: BTreeMap<String, String>,
}

impl Span {
    fn of(span: &Value) -> Span {
        let text = |key: &str| span[key].as_str().unwrap().to_owned();
        let hexadecimal = |id: &str, length| id.len() == length && id.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(hexadecimal(&text("traceId"), 32) && hexadecimal(&text("spanId"), 16), "{span}");
        Span {
            id: text("spanId"),
            trace: text("traceId"),
            parent: span["parentSpanId"].as_str().map(str::to_owned),
            name: text("name"),
            from: text("startTimeUnixNano").parse().unwrap(),
            to: text("endTimeUnixNano").parse().unwrap(),
            attributes: attributes(span),
        }
    }

    fn number(&self, key: &str) -> u64 {
        self.attributes[key].parse().unwrap()
    }
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| {
        let (_, value) = value.as_object().unwrap().iter().next().unwrap();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    let all = of["attributes"].as_array().unwrap().iter();
    all.map(|attribute| (attribute["key"].as_str().unwrap().to_owned(), text(&attribute["value"]))).collect()
}

#[test]
fn each_epoch_is_a_span_with_its_stages_below_it() {
    let case = Case::of(&eventful(91, &[6 * EVENTS, 4 * EVENTS]));
    let collector = Collector::start(Some("200 OK"));
    collector.run(&case).well();
    let tables = check(&case.path("out"), &Partition::of_directory(&case.path("in")), Rules::epochs_of(EVENTS));
    let spans = collector.spans();
    let mut epochs: Vec<&Span> = spans.values().filter(|span| span.name == "epoch").collect();
    epochs.sort_by_key(|span| span.number("tidemark.epoch"));
    let marks = tables.marks();
    assert!(marks.len() >= 6, "{marks:?}");
    assert!(epochs.iter().map(|span| span.number("tidemark.epoch")).eq((1..).take(marks.len())), "{epochs:?}");
    for (epoch, mark) in epochs.iter().zip(&marks) {
        assert_eq!((epoch.parent.as_ref(), epoch.attributes["tidemark.replayed"].as_str()), (None, "false"));
        assert_eq!(epoch.from, u64::try_from(mark.opened).unwrap() * 1_000, "the epoch was opened then");
        let outcomes = ["accepted", "duplicates", "rejected"].map(|key| epoch.number(&format!("tidemark.{key}")));
        assert_eq!(outcomes.iter().sum::<u64>(), epoch.number("tidemark.received"));
        let mut below: Vec<&Span> = spans
            .values()
            .filter(|span| span.parent.as_ref() == Some(&epoch.id) && span.name != "checkpoint")
            .collect();
        let stages = ["cut", "decoded", "distinct", "aggregated", "delivered", "published"];
        below.sort_by_key(|span| stages.iter().position(|stage| *stage == span.name));
        assert_eq!(below.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), stages);
        assert!(
            below.iter().all(|span| span.trace == epoch.trace
                && span.attributes["tidemark.epoch"] == epoch.attributes["tidemark.epoch"])
        );
        // One after the other, from the opening to the publication.
        assert!(
            below.windows(2).all(|pair| pair[0].to == pair[1].from) && below.iter().all(|span| span.from <= span.to)
        );
        assert_eq!((below[0].from, below[5].to), (epoch.from, epoch.to));
        assert!(below[0].to >= u64::try_from(mark.closed).unwrap() * 1_000, "cut before it was closed");
    }
    let checkpoints: Vec<&Span> = spans.values().filter(|span| span.name == "checkpoint").collect();
    assert!(!checkpoints.is_empty());
    for checkpoint in checkpoints {
        let epoch = &spans[checkpoint.parent.as_ref().unwrap()];
        assert_eq!(checkpoint.attributes["tidemark.epoch"], epoch.attributes["tidemark.epoch"]);
        assert!(checkpoint.trace == epoch.trace && checkpoint.to >= epoch.to && checkpoint.from <= checkpoint.to);
    }
    // Started again, it has nothing to do, and nothing to tell.
    collector.run(&case).well();
    assert_eq!(collector.spans().len(), 0);
}

#[test]
fn a_collector_that_is_slow_wrong_or_away_holds_nothing_up() {
    let lines = eventful(92, &[6 * EVENTS]);
    let away = Collector { address: crate::cluster::crew::free_addresses(1).remove(0), received: channel().1 };
    for collector in [Collector::start(None), Collector::start(Some("503 Service Unavailable")), away] {
        let case = Case::of(&lines);
        let ended = collector.run(&case);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let warnings: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("WARN")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("traces are not taken"), "{}", ended.stderr);
        check(&case.path("out"), &Partition::of_directory(&case.path("in")), Rules::epochs_of(EVENTS));
    }
}
