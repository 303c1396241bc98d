//! Events to feed the program with: single ones to bend at will, and whole streams in which everything happens.

use chrono::{DateTime, SecondsFormat};

/// 2025-01-01T00:00:00Z: long past, so that no event comes from the future.
pub(crate) const START_US: i64 = 1_735_689_600_000_000;

pub(crate) const HOUR_US: i64 = 3_600_000_000;

/// A valid event until a field says otherwise. Every field is JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) time: String,
    pub(crate) kind: String,
    pub(crate) amount: String,
    pub(crate) currency: String,
    pub(crate) channel: String,
}

/// An instant as the contract wants it.
pub(crate) fn instant(us: i64) -> String {
    DateTime::from_timestamp_micros(us).unwrap().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

impl Event {
    /// A deposit of ten pounds, `seconds` after the start.
    pub(crate) fn new(id: &str, seconds: i64) -> Event {
        Event {
            id: quoted(id),
            user: quoted("ann"),
            time: quoted(&instant(START_US + seconds * 1_000_000)),
            kind: quoted("deposit_completed"),
            amount: "10".to_owned(),
            currency: quoted("GBP"),
            channel: quoted("web"),
        }
    }

    pub(crate) fn amount(self, amount: &str) -> Event {
        Event { amount: amount.to_owned(), ..self }
    }

    pub(crate) fn user(self, user: &str) -> Event {
        Event { user: quoted(user), ..self }
    }

    pub(crate) fn at(self, time: &str) -> Event {
        Event { time: quoted(time), ..self }
    }

    pub(crate) fn withdrawal(self) -> Event {
        Event { kind: quoted("withdrawal_completed"), ..self }
    }

    pub(crate) fn line(&self) -> String {
        format!(
            r#"{{"event_id":{},"user_id":{},"event_time":{},"ingest_time":"2025-01-01T00:00:00.5+01:00","event_type":{},"amount":{},"currency":{},"channel":{}}}"#,
            self.id, self.user, self.time, self.kind, self.amount, self.currency, self.channel
        )
    }
}

/// SplitMix64: the same numbers for the same seed, everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A valid event of a random stream: the event times of neighbours differ by minutes, those of its ends by weeks.
pub(crate) fn random_event(random: &mut Random, index: usize) -> Event {
    let minutes = 5 * i64::try_from(index).unwrap() + i64::try_from(random.below(240)).unwrap();
    let us = START_US + minutes * 60_000_000 + i64::try_from(random.below(60_000_000)).unwrap();
    let id = format!("{:08x}-0000-4000-8000-{:012x}", random.next() >> 32, random.next() >> 16);
    let mut event = Event::new(&id, 0).at(&instant(us)).user(&format!("user-{}", random.below(60)));
    event.channel = quoted(["web", "mobile", "api"][random.below(3)]);
    event.amount = format!("{}.{:02}", random.below(5_000), 1 + random.below(99));
    if random.below(2) == 0 { event.withdrawal() } else { event }
}

/// A stream without end in which there are duplicates, conflicts, late events and every broken rule.
pub(crate) struct Eventful {
    random: Random,
    sent: Vec<Event>,
    /// How many events of a partition share five minutes of event time.
    pace: usize,
}

/// So many events are remembered to be sent again.
const SENT: usize = 50_000;

impl Eventful {
    pub(crate) fn new(seed: u64, pace: usize) -> Eventful {
        Eventful { random: Random(seed), sent: Vec::new(), pace }
    }

    /// The line at `index` of some partition; partitions are to be asked in turn.
    pub(crate) fn line(&mut self, index: usize) -> String {
        let random = &mut self.random;
        let fresh = random_event(random, index / self.pace);
        let again = if self.sent.is_empty() { fresh.clone() } else { self.sent[random.below(self.sent.len())].clone() };
        let line = match random.below(100) {
            0..=3 => again.line(),
            4..=6 => again.user("somebody else").line(),
            7..=8 => again.at(fresh.time.trim_matches('"')).line(),
            9..=12 => fresh.clone().at(&instant(START_US - HOUR_US * 30)).line(),
            13..=18 => broken(random, fresh.clone()),
            _ => fresh.line(),
        };
        if self.sent.len() < SENT {
            self.sent.push(fresh);
        } else {
            self.sent[index % SENT] = fresh;
        }
        line
    }
}

/// Streams of the given lengths, of which one event in five is not simply accepted.
pub(crate) fn eventful(seed: u64, lengths: &[usize]) -> Vec<Vec<String>> {
    let mut stream = Eventful::new(seed, 1);
    let mut partitions: Vec<Vec<String>> = vec![Vec::new(); lengths.len()];
    for index in 0..lengths.iter().copied().max().unwrap_or(0) {
        for (partition, _) in partitions.iter_mut().zip(lengths).filter(|(_, length)| index < **length) {
            partition.push(stream.line(index));
        }
    }
    partitions
}

/// An event that breaks a rule.
fn broken(random: &mut Random, mut event: Event) -> String {
    let null = "null".to_owned();
    match random.below(14) {
        0 => return event.line().replace('}', ""),
        1 => event.id = quoted(""),
        2 => event.user = null,
        3 => event.time = quoted("2025-02-30T00:00:00Z"),
        4 => return event.line().replace("ingest_time", "ingestion_time"),
        5 => event.kind = null,
        6 => event.amount = quoted("10"),
        7 => event.currency = null,
        8 => event.channel = null,
        9 => event.kind = quoted("deposit"),
        10 => event.channel = quoted("Web"),
        11 => event.currency = quoted("EUR"),
        12 => event.amount = "-0.01".to_owned(),
        _ => event.amount = "10.001".to_owned(),
    }
    event.line()
}
