//! What every table must hold, computed from the same files in the plainest way: split lines, cut epochs, ask the
//! oracle of the dataflows about each event, and write the rows out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tidemark_dataflows::arrangement::{self, SweepRate};
use tidemark_dataflows::block::Body;
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::{Event, EventType, Micros, Offset, PartitionId, Position, UserId};
use tidemark_dataflows::metrics::{ByChannel, ByUser, Totals};
use tidemark_dataflows::oracle::Oracle;
use tidemark_dataflows::payloads::PayloadCap;
use tidemark_dataflows::pipeline::Settings;
use tidemark_dataflows::reason::Reason;
use tidemark_dataflows::tally::Tally;
use tidemark_dataflows::watermark::{Behind, Horizon};

use crate::cells::{Row, row};
use crate::tables::{CHANNELS, CURATED, HEALTH, MANIFEST, Mark, NET_FLOW, REJECTED, Tables, USER_METRICS};

const HOUR_US: i64 = 3_600_000_000;
const MAX_BODY_BYTES: usize = 1 << 20;
const KEPT_BYTES: usize = 64 << 10;

/// The settings that decide what is computed; the defaults are those of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) epoch_events: usize,
    pub(crate) watermark_delay_us: i64,
    pub(crate) dedup_retention_us: i64,
    pub(crate) max_future_skew_us: i64,
    /// Bytes of rejected bodies that are kept of a partition and epoch.
    pub(crate) payload_cap: Option<u64>,
    pub(crate) alignment_us: i64,
    pub(crate) witnesses: usize,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            epoch_events: 100_000,
            watermark_delay_us: 24 * HOUR_US,
            dedup_retention_us: 24 * HOUR_US,
            max_future_skew_us: HOUR_US,
            payload_cap: None,
            alignment_us: HOUR_US,
            witnesses: 10,
        }
    }
}

impl Rules {
    pub(crate) fn epochs_of(epoch_events: usize) -> Rules {
        Rules { epoch_events, ..Rules::default() }
    }

    /// What the computation is told.
    pub(crate) fn settings(&self) -> Settings {
        let horizon =
            Horizon { watermark_delay_us: self.watermark_delay_us, dedup_retention_us: self.dedup_retention_us };
        Settings {
            contract: Contract { max_future_skew_us: self.max_future_skew_us, id_key: [17, 4], curated: true },
            index: arrangement::Settings { horizon, key: [1, 2], expected_ids: 0, sweep: SweepRate::default() },
            log_admissions: None,
            payload_cap: PayloadCap(self.payload_cap),
            witnesses: self.witnesses,
            uncounted: None,
        }
    }

    /// The flags that say the same to the program.
    pub(crate) fn flags(&self) -> Vec<String> {
        let hours = |us: i64| format!("{}h", us / HOUR_US);
        let mut flags = vec![
            ("--epoch-events", self.epoch_events.to_string()),
            ("--watermark-delay", hours(self.watermark_delay_us)),
            ("--dedup-retention", hours(self.dedup_retention_us)),
            ("--max-future-skew", hours(self.max_future_skew_us)),
            ("--alignment", hours(self.alignment_us)),
            ("--witnesses", self.witnesses.to_string()),
        ];
        flags.extend(self.payload_cap.map(|cap| ("--max-quarantine-bytes", format!("{cap}B"))));
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}

/// One input: its name in the tables, and the bodies of its events.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) name: String,
    pub(crate) bodies: Vec<Vec<u8>>,
}

impl Partition {
    pub(crate) fn new(name: &str, content: &[u8]) -> Partition {
        let blank = |line: &[u8]| line.iter().all(|byte| b" \t\r".contains(byte));
        let mut lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
        // Nobody has ended the last line: it may be half an event.
        let contract = Rules::default().settings().contract;
        let is_half = |line: &[u8]| {
            let body = body_of(line, Position::default(), PRESENT);
            contract.check_strict(&body, 0).is_err_and(|violation| violation.reason == Reason::MalformedEvent)
        };
        lines.pop_if(|line| !blank(line) && is_half(line));
        let lines = lines.into_iter().filter(|line| !blank(line));
        Partition { name: name.to_owned(), bodies: lines.map(<[u8]>::to_vec).collect() }
    }

    /// The event time of each event that passes the contract.
    pub(crate) fn times(&self, contract: &Contract) -> Vec<Option<i64>> {
        let bodies = self.bodies.iter().map(|whole| body_of(whole, Position::default(), PRESENT));
        bodies.map(|body| contract.check_strict(&body, 0).ok().map(|event| event.time.0)).collect()
    }

    /// The files directly in a directory, in the order of their names.
    pub(crate) fn of_directory(directory: &Path) -> Vec<Partition> {
        let mut paths: Vec<PathBuf> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        paths.iter().map(|path| Partition::new(&name(path), &std::fs::read(path).unwrap())).collect()
    }
}

/// After all events of these tests: none of them comes from the future.
pub(crate) const PRESENT: Micros = Micros(i64::MAX >> 1);

/// What an epoch takes of each partition, and which are behind after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) counts: Vec<usize>,
    /// None where the watermark does not wait for any.
    pub(crate) behind: Option<Vec<Behind>>,
}

impl Taken {
    /// So many events of each partition, none of which is behind.
    pub(crate) fn of(counts: impl Into<Vec<usize>>) -> Taken {
        Taken { counts: counts.into(), behind: Some(Vec::new()) }
    }
}

/// Epochs of files in the order of event time, as long as there are any; `opened` says when each was opened, from 0 on.
pub(crate) fn cuts_of_files(partitions: &[Partition], rules: Rules, opened: impl Fn(usize) -> Micros) -> Vec<Taken> {
    let contract = rules.settings().contract;
    let mut next = vec![0; partitions.len()];
    let mut cuts: Vec<Taken> = Vec::new();
    let head = |index: usize, next: usize, opened: Micros| {
        let ahead = partitions[index].bodies.iter().skip(next).take(10 * rules.witnesses);
        let bodies = ahead.map(|whole| body_of(whole, Position::default(), opened));
        let valid = bodies.filter_map(|body| contract.check_strict(&body, 0).ok());
        valid.take(rules.witnesses).map(|event| event.time).min()
    };
    loop {
        let epoch = cuts.len();
        let goes_on: Vec<usize> = (0..partitions.len()).filter(|i| next[*i] < partitions[*i].bodies.len()).collect();
        if goes_on.is_empty() {
            return cuts;
        }
        let heads: Vec<Option<Micros>> = goes_on.iter().map(|i| head(*i, next[*i], opened(epoch))).collect();
        let least = heads.iter().flatten().min().map_or(0, |least| least.0);
        let is_active = |at: Option<Micros>| match heads.contains(&None) {
            true => at.is_none(),
            false => at.is_some_and(|at| at.0 <= least + rules.alignment_us),
        };
        let active: Vec<usize> =
            goes_on.iter().zip(&heads).filter(|(_, at)| is_active(**at)).map(|(i, _)| *i).collect();
        let each = (rules.epoch_events / active.len()).max(1);
        let (mut taken, mut behind) = (Taken::of(vec![0; partitions.len()]), Vec::new());
        for index in active {
            taken.counts[index] = each.min(partitions[index].bodies.len() - next[index]);
            next[index] += taken.counts[index];
        }
        for index in goes_on.into_iter().filter(|i| next[*i] < partitions[*i].bodies.len()) {
            let partition = PartitionId(u32::try_from(index).unwrap());
            behind.push(Behind { partition, head: head(index, next[index], opened(epoch)) });
        }
        taken.behind = Some(behind);
        cuts.push(taken);
    }
}

fn body_of(whole: &[u8], at: Position, arrival: Micros) -> Body<'_> {
    let kept = if whole.len() > MAX_BODY_BYTES { KEPT_BYTES } else { whole.len() };
    Body { bytes: &whole[..kept], whole_len: whole.len() as u64, at, arrival, section: None }
}

/// One event of the stream in its epoch.
struct Judged<'a> {
    epoch: usize,
    partition: &'a Partition,
    body: Body<'a>,
    mark: Mark,
}

/// Events by position, which is their order of arrival within an epoch.
type Arrived<'a> = BTreeMap<Position, Judged<'a>>;

/// Every event; opening times come from `marks`.
fn arrivals<'a>(partitions: &'a [Partition], cuts: &[Taken], marks: &[Mark]) -> Arrived<'a> {
    let mut next = vec![0; partitions.len()];
    let mut all = BTreeMap::new();
    for (epoch, (taken, mark)) in (1..).zip(cuts.iter().zip(marks)) {
        for (index, count) in taken.counts.iter().enumerate() {
            for offset in next[index]..next[index] + count {
                let at =
                    Position { partition: PartitionId(u32::try_from(index).unwrap()), offset: Offset(offset as u64) };
                let body = body_of(&partitions[index].bodies[offset], at, Micros(mark.opened));
                all.insert(at, Judged { epoch, partition: &partitions[index], body, mark: *mark });
            }
            next[index] += count;
        }
    }
    all
}

/// The double nearest to a fraction, by way of its decimal expansion and the parser of the standard library.
pub(crate) fn nearest(numerator: i128, denominator: i128) -> f64 {
    assert!(numerator >= 0 && denominator > 0);
    let mut digits = format!("{}.", numerator / denominator);
    let mut rest = numerator % denominator;
    for _ in 0..400 {
        rest *= 10;
        digits.push(char::from(b'0' + u8::try_from(rest / denominator).unwrap()));
        rest %= denominator;
    }
    digits.push(if rest == 0 { '0' } else { '1' });
    digits.parse().unwrap()
}

/// Compares the tables of `output` with those of files that are read in the order of event time, and returns them.
pub(crate) fn check(output: &Path, partitions: &[Partition], rules: Rules) -> Tables {
    let tables = Tables::read(output);
    let marks = tables.marks();
    // Where epochs are missing, their number will differ.
    let opened = |epoch: usize| marks.get(epoch).map_or(PRESENT, |mark| Micros(mark.opened));
    let cuts = cuts_of_files(partitions, rules, opened);
    judge(tables, partitions, &cuts, rules)
}

/// Compares the tables of `output` with those of the given epochs, and returns them.
pub(crate) fn check_cuts(output: &Path, partitions: &[Partition], cuts: &[Taken], rules: Rules) -> Tables {
    judge(Tables::read(output), partitions, cuts, rules)
}

/// Compares tables that were read with those of the given epochs, and returns them.
pub(crate) fn judge(tables: Tables, partitions: &[Partition], cuts: &[Taken], rules: Rules) -> Tables {
    let marks = tables.marks();
    assert_eq!(marks.len(), cuts.len(), "epochs");
    let in_order = |pair: &[Mark]| pair[0].opened <= pair[0].closed && pair[0].closed <= pair[1].opened;
    assert!(marks.windows(2).all(in_order) && marks.iter().all(|m| m.opened <= m.closed), "{marks:?}");

    let inbox = partitions.iter().position(|partition| partition.name == "replay");
    let uncounted = inbox.map(|index| PartitionId(u32::try_from(index).unwrap()));
    let settings = Settings { uncounted, ..rules.settings() };
    let contract = settings.contract.clone();
    let mut oracle = Oracle::new(settings);
    let arrived = arrivals(partitions, cuts, &marks);
    for (epoch, taken) in (1..).zip(cuts) {
        let events = arrived.values().filter(|event| event.epoch == epoch);
        oracle.epoch(events.map(|event| event.body), taken.behind.as_deref());
    }

    let mut expected = vec![
        (NET_FLOW.name, vec![net_flow(&oracle, &marks)]),
        (USER_METRICS.name, user_metrics(&oracle, &marks)),
        (CHANNELS.name, channels(&oracle, &marks)),
        (REJECTED.name, rejected(&oracle, &arrived, rules.payload_cap)),
        (HEALTH.name, health(&oracle, &marks)),
        (MANIFEST.name, manifest(&oracle, &marks)),
    ];
    if tables.has(&CURATED) {
        expected.push((CURATED.name, curated(&oracle, &arrived, &contract)));
    }
    let judged = tables.clone().without_free_columns();
    judged.assert_equals(&Tables::of(expected).without_free_columns());
    check_details(&tables, &arrived);
    tables
}

fn net_flow(oracle: &Oracle, marks: &[Mark]) -> Row {
    let totals = oracle.net_flow();
    let average = |pence: i128, count: u64| nearest(pence, 100 * i128::from(count.max(1)));
    let changed = oracle.of::<ByChannel>().map(|(_, _, epoch)| epoch).max();
    let updated = changed.map_or(marks[0].opened, |epoch| marks[epoch as usize - 1].closed);
    row![
        1i64,
        totals.deposits,
        totals.withdrawals,
        totals.deposits - totals.withdrawals,
        totals.deposit_count,
        totals.withdrawal_count,
        average(totals.deposits, totals.deposit_count),
        average(totals.withdrawals, totals.withdrawal_count),
        nearest(totals.deposits, totals.withdrawals.max(1)),
        updated,
    ]
}

fn user_metrics(oracle: &Oracle, marks: &[Mark]) -> Vec<Row> {
    let row = |(user, t, epoch): (UserId, Totals, u64)| {
        row![
            user.0.as_str(),
            t.deposits,
            t.withdrawals,
            t.deposit_count,
            t.withdrawal_count,
            t.first_seen.0,
            t.last_seen.0,
            marks[epoch as usize - 1].closed,
        ]
    };
    let mut rows: Vec<Row> = oracle.of::<ByUser>().map(row).collect();
    rows.sort();
    rows
}

fn channels(oracle: &Oracle, marks: &[Mark]) -> Vec<Row> {
    let mut rows = Vec::new();
    for ((channel, event_type), totals, epoch) in oracle.of::<ByChannel>() {
        let (count, amount) = match event_type {
            EventType::Deposit => (totals.deposit_count, totals.deposits),
            EventType::Withdrawal => (totals.withdrawal_count, totals.withdrawals),
        };
        let closed = marks[epoch as usize - 1].closed;
        rows.push(row![channel.as_str(), event_type.as_str(), count, amount, closed]);
    }
    rows.sort();
    rows
}

fn rejected(oracle: &Oracle, arrived: &Arrived<'_>, cap: Option<u64>) -> Vec<Row> {
    #[derive(Deserialize)]
    struct Id {
        event_id: String,
    }
    let mut rows = Vec::new();
    let mut taken: BTreeMap<(u64, PartitionId), u64> = BTreeMap::new();
    for (epoch, at, reason) in &oracle.rejected {
        let event = &arrived[at];
        let kept = &event.body.bytes[..event.body.bytes.len().min(KEPT_BYTES)];
        let cut = event.body.whole_len > kept.len() as u64;
        let taken = taken.entry((*epoch, at.partition)).or_default();
        *taken += kept.len() as u64;
        let (payload, encoding) = match std::str::from_utf8(kept) {
            _ if cap.is_some_and(|cap| *taken > cap) => (String::new(), "omitted"),
            Ok(text) => (text.to_owned(), "utf-8"),
            // The cut went through a character.
            Err(error) if cut && error.error_len().is_none() => {
                (String::from_utf8(kept[..error.valid_up_to()].to_vec()).unwrap(), "utf-8")
            }
            Err(_) => (STANDARD.encode(kept), "base64"),
        };
        let nameless = matches!(reason, Reason::MalformedEvent | Reason::NullEventId);
        let id = (!nameless).then(|| serde_json::from_slice::<Id>(event.body.bytes).unwrap().event_id);
        let partition = event.partition.name.as_str();
        let (offset, closed) = (at.offset.0, event.mark.closed);
        rows.push(row![id, payload, encoding, reason.as_str(), None::<String>, partition, offset, *epoch, closed]);
    }
    // As the table is read: the names of partitions need not be in their order.
    rows.sort_by(|a: &Row, b| (&a[7], &a[5], &a[6]).cmp(&(&b[7], &b[5], &b[6])));
    rows
}

fn health(oracle: &Oracle, marks: &[Mark]) -> Vec<Row> {
    let by_reason = |tally: &Tally| {
        let counts = Reason::ALL.iter().map(|reason| (reason.as_str(), tally.rejected_for(*reason)));
        let members: Vec<String> = counts.filter(|(_, n)| *n > 0).map(|(name, n)| format!("\"{name}\":{n}")).collect();
        format!("{{{}}}", members.join(","))
    };
    let row = |(epoch, (tally, mark)): (i64, (&Tally, &Mark))| {
        let lag = tally.newest.map_or(0, |newest| (mark.closed - newest.0).max(0) / 1_000_000);
        row![
            epoch,
            mark.opened,
            mark.closed,
            tally.received,
            tally.accepted,
            tally.rejected_total(),
            tally.duplicates,
            tally.rejected_for(Reason::LateEvent),
            by_reason(tally),
            None::<i64>,
            lag,
            tally.watermark.map(|w| w.0),
            tally.retained_ids,
            "ok",
        ]
    };
    (1..).zip(oracle.epochs.iter().zip(marks)).map(row).collect()
}

fn manifest(oracle: &Oracle, marks: &[Mark]) -> Vec<Row> {
    let sum = |count: fn(&Tally) -> u64| oracle.epochs.iter().map(count).sum::<u64>();
    vec![row![
        marks[0].opened,
        marks[marks.len() - 1].closed,
        marks.len() as u64,
        sum(|t| t.received),
        sum(|t| t.accepted),
        sum(Tally::rejected_total),
        sum(|t| t.duplicates),
        None::<String>,
        None::<String>,
        None::<String>,
    ]]
}

fn curated(oracle: &Oracle, arrived: &Arrived<'_>, contract: &Contract) -> Vec<Row> {
    let row = |(epoch, at): &(u64, Position)| {
        let judged = &arrived[at];
        let event: Event = contract.check_strict(&judged.body, 0).unwrap();
        let members = event.curated.unwrap();
        row![
            members.event_id,
            event.user.0.as_str(),
            event.time.0,
            members.ingest_time.0,
            event.event_type.as_str(),
            event.amount.0,
            "GBP",
            event.channel.as_str(),
            *epoch,
            judged.partition.name.as_str(),
            at.offset.0,
        ]
    };
    let mut rows: Vec<Row> = oracle.accepted.iter().map(row).collect();
    rows.sort_by(|a, b| a[8..].cmp(&b[8..]));
    rows
}

/// What the specification says of the columns that are left free: a body that was cut has its whole length told, times
/// are plausible, and words are there.
fn check_details(tables: &Tables, arrived: &Arrived<'_>) {
    let long: Vec<u64> =
        arrived.values().map(|event| event.body.whole_len).filter(|n| *n > KEPT_BYTES as u64).collect();
    let details = tables.column(&REJECTED, "detail");
    let told = |length: &u64| details.iter().any(|detail| format!("{detail:?}").contains(&length.to_string()));
    assert!(long.iter().all(told), "{long:?} not all in {details:?}");
    assert!(tables.wholes(&HEALTH, "processing_time_ms").iter().all(|ms| (0..3_600_000).contains(ms)));
    let scope = tables.texts(&MANIFEST, "dedup_scope").remove(0);
    assert!(scope.contains("event_id") && scope.contains("retention") && scope.contains("watermark"), "{scope}");
    assert!(
        tables.texts(&MANIFEST, "source").iter().chain(&tables.texts(&MANIFEST, "output_path")).all(|t| !t.is_empty())
    );
}
