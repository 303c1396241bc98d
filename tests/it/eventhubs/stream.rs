//! A pipeline from an event hub that is started again and again, and the broker that it reads from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::Value;
use tidemark_broker::{Broker, BrokerOptions, Control};
use tidemark_dataflows::event::PartitionId;
use tidemark_dataflows::watermark::Behind;
use tokio::runtime::Runtime;

use crate::crash::job::Stop;
use crate::data::eventful;
use crate::oracle::{Partition, Rules, Taken, check_cuts};
use crate::program::{Case, Ended, Running, finish, tidemark};
use crate::tables::{MANIFEST, Tables};

/// Publishes and checkpoints often, keeps every cut, shows what it does, and notices quickly that a link is dead.
pub(crate) const EAGER: &str = "--trigger 50ms --checkpoint-interval 100ms --set sink.publish_interval=0ms \
     --set checkpoint.keep=1000 --set eventhubs.quiet_after=500ms --set eventhubs.lag_interval=200ms \
     --set log.level=warn,tidemark=debug,deltalake_core=error,buoyant_kernel=off,azure_messaging_eventhubs=off,azure_core_amqp=off,fe2o3_amqp=off";

/// How often it checkpoints.
const OFTEN: &str = "--checkpoint-interval 100ms";

/// A broker in this process.
pub(crate) struct Hub {
    // Before the runtime, whose threads it needs to end.
    broker: Option<Broker>,
    runtime: Runtime,
}

impl Hub {
    pub(crate) fn new(options: BrokerOptions) -> Hub {
        tidemark_eventhubs::choose_cryptography();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::start(options)).unwrap();
        Hub { broker: Some(broker), runtime }
    }

    pub(crate) fn of(partitions: usize) -> Hub {
        Hub::new(BrokerOptions { partitions, ..BrokerOptions::default() })
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    pub(crate) fn control(&self) -> Control {
        self.broker().control()
    }

    pub(crate) fn connection_string(&self) -> String {
        self.broker().connection_string()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.stop());
        }
    }
}

/// The ranges of an epoch (partition, first offset, the one after the last), and the partitions that were behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cut {
    pub(crate) ranges: Vec<(usize, u64, u64)>,
    pub(crate) behind: Vec<u32>,
}

/// A pipeline from an event hub to `out`.
pub(crate) struct Stream {
    pub(crate) case: Case,
    pub(crate) hub: Hub,
    pub(crate) rules: Rules,
    /// What was sent, by partition.
    pub(crate) sent: Vec<Vec<String>>,
    /// The cuts that were exported so far, by epoch: a restart forgets those that it does not need.
    cuts: RefCell<BTreeMap<u64, Cut>>,
}

impl Stream {
    pub(crate) fn new(hub: Hub) -> Stream {
        let partitions = hub.control().statistics().partitions.len();
        Stream {
            case: Case::new(),
            hub,
            rules: Rules::default(),
            sent: vec![Vec::new(); partitions],
            cuts: RefCell::default(),
        }
    }

    /// A pipeline whose first run has ended. It has left one checkpoint, which is kept: every cut can be exported, those
    /// of this run as there is only one, later ones as they come after it.
    pub(crate) fn begun(hub: Hub) -> Stream {
        let mut stream = Stream::new(hub);
        let partitions = stream.sent.len();
        stream.send(&eventful(1, &vec![3; partitions]));
        stream.drain("--checkpoint-interval 1h").well();
        stream.gather();
        stream
    }

    /// Adds events to the partitions, as a producer would.
    pub(crate) fn send(&mut self, partitions: &[Vec<String>]) {
        for (index, lines) in partitions.iter().enumerate() {
            self.hub.control().append(index, lines).unwrap();
            self.sent[index].extend(lines.iter().cloned());
        }
    }

    /// Makes it so many partitions, as whoever owns the event hub can at any time.
    pub(crate) fn grow(&mut self, partitions: usize) {
        self.hub.control().set_partitions(partitions).unwrap();
        self.sent.resize(partitions, Vec::new());
    }

    pub(crate) fn total(&self) -> usize {
        self.sent.iter().map(Vec::len).sum()
    }

    /// Any verb, which knows how to get in.
    pub(crate) fn verb(&self, args: &[&str]) -> Ended {
        let mut command = tidemark(self.case.root(), args);
        finish(command.env("EVENT_HUB_CONNECTION_STRING", self.hub.connection_string()), b"")
    }

    /// Starts it with further arguments and fail points.
    pub(crate) fn start(&self, more: &str, fail_points: &str) -> Running {
        self.gather();
        let args = ["run", "--source", "eventhubs"].map(str::to_owned).into_iter();
        let workers = (!more.contains("--workers")).then(|| ["--workers", "2"].map(str::to_owned));
        let args = args.chain(workers.into_iter().flatten());
        let output = (!more.contains("--output")).then(|| ["--output", "out"].map(str::to_owned));
        let eager = if more.contains("--checkpoint-interval") { EAGER.replace(OFTEN, "") } else { EAGER.to_owned() };
        let more = [more, &eager].into_iter().flat_map(str::split_whitespace).map(str::to_owned);
        let args = args.chain(output.into_iter().flatten()).chain(self.rules.flags()).chain(more);
        // The size of an epoch is of files alone.
        let args: Vec<String> = args.collect();
        let size = args.iter().position(|arg| arg == "--epoch-events");
        let args = args.iter().enumerate().filter(|(at, _)| size.is_none_or(|size| *at != size && *at != size + 1));
        let mut command = tidemark(self.case.root(), args.map(|(_, arg)| arg));
        command.env("EVENT_HUB_CONNECTION_STRING", self.hub.connection_string()).env("FAILPOINTS", fail_points);
        Running::start(command.stdin(Stdio::null()))
    }

    /// Starts it, waits until it stops at a place, and kills it there.
    pub(crate) fn kill_at(&self, more: &str, stop: &Stop) {
        let mut running = self.start(more, &stop.fail_points());
        let word = format!("stopped at {}", stop.place);
        assert!(running.says(&word), "never came to {stop:?}:\n{}", running.log());
        running.kill().unwrap_or_else(|ended| panic!("ended at {stop:?}: {ended:?}"));
    }

    /// Waits until so many events are in the tables, whatever became of them.
    pub(crate) fn await_received(&self, running: &mut Running, events: usize) {
        let mut published = running.log().matches("published").count();
        while self.received() < events {
            published += 1;
            assert!(running.says_times(published, "published"), "ended before all came in:\n{}", running.log());
            published = published.max(running.log().matches("published").count());
        }
    }

    fn received(&self) -> usize {
        if !self.case.path("out/monitoring/run_manifest/_delta_log").is_dir() {
            return 0;
        }
        let received = Tables::read(&self.case.path("out")).wholes(&MANIFEST, "total_events_received");
        received.first().map_or(0, |received| usize::try_from(*received).unwrap())
    }

    /// Starts it, waits until everything that was sent is in the tables, and ends it with a signal.
    pub(crate) fn drain(&self, more: &str) -> Ended {
        let mut running = self.start(more, "");
        self.await_received(&mut running, self.total());
        running.signal("TERM");
        running.ended()
    }

    /// Notes the cuts that the program exports.
    fn gather(&self) {
        if !self.case.path("out/_tidemark").is_dir() {
            return;
        }
        let shown = self.verb(&["checkpoint", "show", "--json", "--output", "out"]);
        // A process that was killed early has left nothing to show.
        let Ok(shown) = serde_json::from_str::<Value>(&shown.stdout) else { return };
        let whole = |value: &Value| value.as_u64().unwrap();
        let range = |range: &Value| {
            let index = range["partition"].as_str().unwrap().parse().unwrap();
            (index, whole(&range["from"]), whole(&range["to"]))
        };
        for cut in shown["cuts"].as_array().unwrap() {
            let ranges = cut["ranges"].as_array().unwrap().iter().map(range).collect();
            let index = |behind: &Value| u32::try_from(whole(&behind[0])).unwrap();
            let behind = cut["behind"].as_array().unwrap().iter().map(index).collect();
            let found = Cut { ranges, behind };
            let known = self.cuts.borrow_mut().insert(whole(&cut["epoch"]), found.clone());
            assert!(known.is_none_or(|known| known == found), "an epoch was cut twice: {cut}");
        }
    }

    /// The cuts, as the program exports them.
    pub(crate) fn cuts(&self) -> Vec<Cut> {
        self.gather();
        let cuts = self.cuts.borrow();
        assert!(cuts.keys().copied().eq(1..=cuts.len() as u64), "cuts are missing: {:?}", cuts.keys());
        cuts.values().cloned().collect()
    }

    /// What each epoch took of each partition, by the cuts.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        let taken = |cut: &Cut| {
            let mut counts = vec![0; self.sent.len()];
            cut.ranges.iter().for_each(|(index, from, to)| counts[*index] += usize::try_from(to - from).unwrap());
            let behind = cut.behind.iter().map(|index| Behind { partition: PartitionId(*index), head: None });
            Taken { counts, behind: Some(behind.collect()) }
        };
        self.cuts().iter().map(taken).collect()
    }

    /// Compares the tables with those of an undisturbed run over what was sent, cut into the same epochs.
    pub(crate) fn check(&self) -> Tables {
        let of = |(index, lines): (usize, &Vec<String>)| Partition {
            name: index.to_string(),
            bodies: lines.iter().map(|line| line.clone().into_bytes()).collect(),
        };
        let partitions: Vec<Partition> = self.sent.iter().enumerate().map(of).collect();
        check_cuts(&self.case.path("out"), &partitions, &self.taken(), self.rules)
    }

    /// Everything that is stored passes.
    pub(crate) fn evidence(&self) {
        self.verb(&["evidence", "--output", "out"]).well();
        self.verb(&["checkpoint", "verify", "--output", "out"]).well();
    }
}
